// One source for the inner loops, compiled for several instruction sets and
// chosen when the library is loaded.
#pragma once

#if defined(__clang__) || !defined(__GNUC__)
#define TX_SIMD
#elif !defined(__x86_64__)
#define TX_SIMD __attribute__((optimize("O3")))
#elif __GNUC__ >= 12
#define TX_SIMD                                                              \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), \
                 optimize("O3")))
#else
#define TX_SIMD __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#endif
