// What every entry point shares: unwrapping handles and turning exceptions
// into messages.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/version.h>

#include <cstring>
#include <exception>

#include "torchx.h"

#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 4)
#error "libtorch 2.4 or newer is needed: its optional tensors are std::optional"
#endif

namespace tx {

inline at::Tensor &ref(tx_tensor t) { return *static_cast<at::Tensor *>(t); }

// An absent handle is an undefined tensor, as ATen's optional arguments are.
inline at::Tensor opt(tx_tensor t) { return t ? ref(t) : at::Tensor(); }

inline void give(tx_tensor *out, at::Tensor t) {
  *out = new at::Tensor(std::move(t));
}

template <class F>
char *guard(F &&f) noexcept {
  try {
    f();
    return nullptr;
  } catch (const c10::Error &e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception &e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

}  // namespace tx
