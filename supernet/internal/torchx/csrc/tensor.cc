// Process-wide settings, tensors, copies and autograd.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <torch/version.h>

#include "guard.h"

using at::Tensor;
using tx::give;
using tx::guard;
using tx::ref;

namespace {

at::Device device_of(int32_t index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, index);
}

}  // namespace

void tx_free_message(char *message) { free(message); }

void tx_free_tensors(tx_tensor *t, int64_t n) {
  for (int64_t i = 0; i < n; i++) delete static_cast<Tensor *>(t[i]);
}

const char *tx_version(void) { return TORCH_VERSION; }

void tx_set_threads(int32_t n) { at::set_num_threads(n); }

void tx_repeat_exactly(void) { at::globalContext().setDeterministicCuDNN(true); }

int32_t tx_cuda_devices(void) {
  int32_t n = 0;
  char *err = guard([&] {
    if (at::hasCUDA()) n = at::detail::getCUDAHooks().getNumGPUs();
  });
  free(err);
  return n;
}

char *tx_to(tx_tensor t, int32_t device, int32_t channels_last, tx_tensor *out) {
  return guard([&] {
    Tensor r = ref(t).to(device_of(device));
    if (!channels_last || r.dim() != 4) return give(out, r.contiguous());
    r = r.contiguous(at::MemoryFormat::ChannelsLast);
    // With one channel both layouts are the same bytes, and operators go by the
    // strides: say channels-last in them.
    give(out, r.as_strided(r.sizes(), c10::get_channels_last_strides_2d(r.sizes())));
  });
}

char *tx_zeros_like(tx_tensor t, tx_tensor *out) {
  return guard([&] { give(out, at::zeros_like(ref(t))); });
}

char *tx_to_host(tx_tensor t, float *dst, int64_t n) {
  return guard([&] {
    const Tensor &src = ref(t);
    TORCH_CHECK(src.numel() == n, "copy to host: ", src.numel(),
                " elements into room for ", n);
    c10::NoGradGuard no_grad;
    at::from_blob(dst, src.sizes(), at::kFloat).copy_(src);
  });
}

char *tx_from_host(tx_tensor t, const float *src, int64_t n) {
  return guard([&] {
    Tensor &dst = ref(t);
    TORCH_CHECK(dst.numel() == n, "copy from host: ", n, " elements into ",
                dst.numel());
    c10::NoGradGuard no_grad;
    dst.copy_(at::from_blob(const_cast<float *>(src), dst.sizes(), at::kFloat));
  });
}

char *tx_part(tx_tensor t, const int64_t *spans, int32_t dims,
              int32_t requires_grad, tx_tensor *out) {
  return guard([&] {
    c10::NoGradGuard no_grad;
    Tensor r = ref(t);
    for (int32_t d = 0; spans && d < dims; d++)
      r = r.narrow(d, spans[2 * d], spans[2 * d + 1]);
    give(out, r.detach().set_requires_grad(requires_grad));
  });
}

int32_t tx_set_grad_mode(int32_t on) {
  bool was = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(on);
  return was;
}

char *tx_backward(tx_tensor loss) {
  return guard([&] { ref(loss).backward(); });
}

char *tx_grad(tx_tensor leaf, tx_tensor *out) {
  return guard([&] {
    TORCH_CHECK(ref(leaf).grad().defined(), "the leaf has no gradient");
    give(out, ref(leaf).grad());
  });
}
