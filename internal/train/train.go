// Package train is the training loop: which path and which images belong to
// a step, the learning rate along the way, metrics, checkpoints, a clean stop
// and an exact resume. It knows a [Stepper] and never a tensor.
package train
