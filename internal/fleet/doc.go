// Package fleet hands jobs to named devices over NATS and brings back exactly
// one answer to each. It knows nothing of what a job asks: bodies are opaque.
//
// Every device has three JetStream streams of its own, so that what a device
// may touch can be said in subjects:
//
//	spos-jobs-D   spos.job.D.K         a work queue: what D is to do, in order
//	spos-kept-D   spos.answer.D.K      the answers, one for each job
//	              spos.presence.D      who works as D, and what D says of itself
//	spos-blobs-D  spos.blob.D.H.N      large attachments by content, in pieces
//
// K is a hash of the job's ID and H one of the attachment. Beside the streams,
// spos.ask.D takes questions outside the queue, spos.alive.D is answered by
// the worker that has D, spos.want.D.H asks whoever waits for a job to send
// its attachment again, and spos.told.D.K repeats every answer as it is kept.
//
// What counts an answer once, whoever dies: a job is put into the queue only
// if none with its key is there, an answer is kept only if none with its key
// is there, and both are decided by the broker in one step. A job leaves the
// queue after its answer is kept, never before; a worker looks for an answer
// before it begins. A worker that lost its lease and comes back late finds its
// answer refused. Time decides nothing but how soon a dead worker's job is
// given to another, so a clock that jumps can delay and repeat work, and not
// lose or double it.
package fleet
