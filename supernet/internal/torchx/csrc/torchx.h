/*
 * The door to libtorch: what gotorch lacks, as plain C.
 *
 * A tx_tensor is an at::Tensor*, the same thing gotorch calls Tensor, so
 * handles of either library can be passed to the other. Who receives one
 * through an `out` argument owns it and frees it with tx_free_tensors.
 *
 * A function that can fail returns NULL on success, or a message that the
 * caller frees with tx_free_message; its out arguments are then untouched. No
 * C++ exception leaves this library.
 *
 * Grad mode is a property of the calling thread, and so are the OpenMP
 * threads: make all calls that compute from one thread.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *tx_tensor;

enum { TX_ACT_NONE, TX_ACT_RELU, TX_ACT_RELU6 };

void tx_free_message(char *message);
void tx_free_tensors(tx_tensor *t, int64_t n);

/* --- process ------------------------------------------------------------ */

const char *tx_version(void);
/* How many threads the calling thread's operators use. */
void tx_set_threads(int32_t n);
/* Makes cuDNN take algorithms that repeat their results to the bit: a resumed
 * training is to be the one that was not interrupted. */
void tx_repeat_exactly(void);
/* Makes libtorch keep freed CPU blocks for reuse (see memory.cc). Idempotent. */
void tx_cache_host_memory(void);
/* Bytes of CPU tensors in use, their peak, and the bytes held from the system.
 * Counts only blocks that the cache serves. */
void tx_host_memory(int64_t *used, int64_t *peak, int64_t *held);
/* Returns every block that is not in use to the system. */
void tx_release_host_memory(void);

int32_t tx_cuda_devices(void);

/* --- tensors ------------------------------------------------------------ */

/* device is a CUDA index, or -1 for the CPU. A 4-d tensor is made dense
 * channels-last where channels_last is set, dense row-major otherwise. */
char *tx_to(tx_tensor t, int32_t device, int32_t channels_last, tx_tensor *out);
char *tx_zeros_like(tx_tensor t, tx_tensor *out);
/* Row-major float32 elements out of, and into, a tensor of any layout and
 * device; n is the number of elements. */
char *tx_to_host(tx_tensor t, float *dst, int64_t n);
char *tx_from_host(tx_tensor t, const float *src, int64_t n);
/* The part of t that the spans (start, length per dimension) select; it shares
 * t's memory and no history. spans may be NULL: the whole tensor. With
 * requires_grad it is a leaf, whose gradient tx_grad and tx_sgd find. */
char *tx_part(tx_tensor t, const int64_t *spans, int32_t dims,
              int32_t requires_grad, tx_tensor *out);

/* --- autograd ------------------------------------------------------------ */

/* Sets the calling thread's grad mode and returns the former one. */
int32_t tx_set_grad_mode(int32_t on);
char *tx_backward(tx_tensor loss);
/* The gradient of a leaf, which must have one. */
char *tx_grad(tx_tensor leaf, tx_tensor *out);

/* --- operators ------------------------------------------------------------ */

/* Depthwise convolution, square and without bias. */
char *tx_depthwise(tx_tensor x, tx_tensor weight, int64_t stride, int64_t pad,
                   tx_tensor *out);
/* Batch norm over the batch's own statistics, then the activation. mean and
 * var move by momentum towards the batch's mean and unbiased variance. gamma
 * and beta may be NULL: one and zero. */
char *tx_norm_act(tx_tensor x, tx_tensor gamma, tx_tensor beta, tx_tensor mean,
                  tx_tensor var, double momentum, double eps, int32_t act,
                  tx_tensor *out);
/* The activation alone, in place: for inference. */
char *tx_act_inplace(tx_tensor x, int32_t act);
/* Weight and bias of the convolution that equals convolution and norm with
 * these statistics. */
char *tx_fold_norm(tx_tensor weight, tx_tensor gamma, tx_tensor beta,
                   tx_tensor mean, tx_tensor var, double eps,
                   tx_tensor *out_weight, tx_tensor *out_bias);
/* Regroups channels: the inputs' channels are numbered through, and output o
 * takes the next counts[o] of those listed in channels. Inputs share batch
 * and extent. */
char *tx_regroup(const tx_tensor *in, int32_t n_in, const int32_t *channels,
                 const int32_t *counts, int32_t n_out, tx_tensor *out);
/* Zeroes each element with probability rate and scales the rest by
 * 1/(1-rate). The mask is drawn on the CPU from seed alone, so it is the same
 * on every device. */
char *tx_dropout(tx_tensor x, double rate, uint64_t seed, tx_tensor *out);
/* Mean cross entropy with label smoothing; labels are int64. */
char *tx_cross_entropy(tx_tensor logits, tx_tensor labels, double smoothing,
                       tx_tensor *out);
/* The loss as a number and how many rows' largest logit is the label's. */
char *tx_score(tx_tensor loss, tx_tensor logits, tx_tensor labels,
               double *loss_value, int64_t *correct);

/* --- optimiser ------------------------------------------------------------ */

typedef struct {
  double lr, momentum;
  int32_t nesterov;
  double clip_value; /* 0: off */
  double clip_norm;  /* over all gradients together; 0: off */
} tx_sgd_options;

/* One step of PyTorch's SGD on leaves made by tx_part. velocity[i] has the
 * shape of leaves[i] and starts as zero; decay[i] is its weight decay. */
char *tx_sgd(const tx_tensor *leaves, const tx_tensor *velocity,
             const double *decay, int64_t n, const tx_sgd_options *options);

#ifdef __cplusplus
}
#endif
