package data

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"

	"spos/internal/arch"
	"spos/internal/imaging"
)

// Loader makes batches of a data set. It holds no state: what a batch holds
// depends on these fields and its [Position] alone, and not on Workers, on
// Prefetch or on what was loaded before, so training resumes at any step.
type Loader struct {
	Data   Dataset
	Recipe imaging.Recipe // the evaluation preprocessing; training shares its size, colour and moments
	Size   int            // images a batch

	// Train draws a new order for each epoch, augments, leaves out the last
	// images of an epoch that fill no batch, and never ends. Otherwise there
	// is one epoch, in order, every image once, not augmented, the last batch
	// perhaps smaller.
	Train   bool
	Augment imaging.Augment // of Train only
	Seed    uint64          // of Train only: order and augmentation

	Workers  int // goroutines that decode. Zero: GOMAXPROCS
	Prefetch int // batches prepared ahead. Zero: 2
}

// Position names a batch: what a checkpoint keeps of a Loader. The zero value
// is the first one.
type Position struct {
	Epoch int `json:"epoch"`
	Batch int `json:"batch"` // within the epoch
}

// PerEpoch is the number of batches of an epoch.
func (l *Loader) PerEpoch() int {
	if l.Train {
		return l.Data.Len() / l.Size
	}
	return (l.Data.Len() + l.Size - 1) / l.Size
}

// At is the position after a number of training steps.
func (l *Loader) At(step int) Position {
	n := l.PerEpoch()
	return Position{Epoch: step / n, Batch: step % n}
}

// Shape is the shape of the images in a batch. Where the recipe leaves the
// size to the images, it is that of the first.
func (l *Loader) Shape() (arch.Shape, error) {
	s := l.Recipe.Shape()
	if s.H > 0 {
		return s, nil
	}
	im, err := l.Data.Image(0)
	if err != nil {
		return arch.Shape{}, err
	}
	s.H, s.W = im.H, im.W
	return s, nil
}

func (l *Loader) validate(from Position) error {
	switch {
	case l.Data == nil || l.Data.Len() == 0:
		return errors.New("no images")
	case l.Size < 1:
		return fmt.Errorf("batch size %d is not positive", l.Size)
	case l.PerEpoch() == 0:
		return fmt.Errorf("%d images do not fill one batch of %d: choose a smaller batch", l.Data.Len(), l.Size)
	case from.Epoch < 0 || from.Batch < 0 || from.Batch > l.PerEpoch():
		return fmt.Errorf("position %+v is outside an epoch of %d batches", from, l.PerEpoch())
	}
	if err := l.Recipe.Validate(); err != nil {
		return err
	}
	return l.Augment.Validate()
}

// Batches yields the batches from a position on, prepared in parallel and
// ahead of time. A batch and its slices belong to the consumer until it asks
// for the next one; they are then written over. After an error, which names
// the image, the sequence ends; so it does with the context's cause when ctx
// is done. The consumer may stop at any time: every goroutine has ended when
// the loop is left. The sequence can be ranged over again.
func (l *Loader) Batches(ctx context.Context, from Position) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		if err := l.validate(from); err != nil {
			yield(Batch{}, fmt.Errorf("load batches: %w", err))
			return
		}
		shape, err := l.Shape()
		if err != nil {
			yield(Batch{}, fmt.Errorf("load batches: %w", err))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		p := l.start(ctx, from, shape)
		defer p.group.Wait()
		defer cancel()
		for s := range p.ordered {
			select {
			case <-s.done:
			case <-ctx.Done():
			}
			if ctx.Err() != nil { // a worker may have left the batch half done
				break
			}
			if s.err != nil {
				yield(Batch{}, fmt.Errorf("load batches: %w", s.err))
				return
			}
			n := len(s.index)
			b := Batch{Images: s.images[:n*shape.Numel()], Labels: s.labels[:n], N: n, Shape: shape}
			if !yield(b, nil) {
				return
			}
			p.free <- s
		}
		if ctx.Err() != nil {
			yield(Batch{}, context.Cause(ctx))
		}
	}
}

// chunk is how many images one job has: enough to make handing it over
// cheap for tiny images, few enough to share a batch of photographs.
const chunk = 8

// slot is one batch in the making.
type slot struct {
	images []float32
	labels []int64
	index  []int32 // of the images, in the data set
	epoch  int
	done   chan struct{} // receives once when all jobs are done

	mu      sync.Mutex
	pending int
	err     error // of the foremost image that failed
	errAt   int
}

type job struct {
	slot   *slot
	lo, hi int
}

// pipeline is one run of Batches: a planner that hands out jobs in order,
// workers, and slots that travel in a circle.
type pipeline struct {
	loader  *Loader
	shape   arch.Shape
	free    chan *slot
	ordered chan *slot
	jobs    chan job
	group   sync.WaitGroup
}

func (l *Loader) start(ctx context.Context, from Position, shape arch.Shape) *pipeline {
	workers, slots := l.Workers, l.Prefetch
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	if slots < 1 {
		slots = 2
	}
	slots++ // the consumer holds one
	p := &pipeline{
		loader: l, shape: shape,
		free: make(chan *slot, slots), ordered: make(chan *slot, slots), jobs: make(chan job, workers),
	}
	for range slots {
		p.free <- &slot{
			images: make([]float32, l.Size*shape.Numel()),
			labels: make([]int64, l.Size),
			done:   make(chan struct{}, 1),
		}
	}
	p.group.Go(func() { p.plan(ctx, from) })
	for range workers {
		p.group.Go(func() { p.work(ctx) })
	}
	return p
}

// plan hands out batch after batch.
func (p *pipeline) plan(ctx context.Context, at Position) {
	defer close(p.jobs)
	defer close(p.ordered)
	l := p.loader
	for order := l.order(at.Epoch); ; at.Batch++ {
		if at.Batch >= l.PerEpoch() {
			if !l.Train {
				return
			}
			at = Position{Epoch: at.Epoch + 1}
			order = l.order(at.Epoch)
		}
		var s *slot
		select {
		case s = <-p.free:
		case <-ctx.Done():
			return
		}
		s.epoch, s.err = at.Epoch, nil
		s.index = order[at.Batch*l.Size : min((at.Batch+1)*l.Size, len(order))]
		s.pending = (len(s.index) + chunk - 1) / chunk
		p.ordered <- s // as wide as there are slots: never blocks
		for lo := 0; lo < len(s.index); lo += chunk {
			select {
			case p.jobs <- job{s, lo, min(lo+chunk, len(s.index))}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// order is the epoch's order of the images.
func (l *Loader) order(epoch int) []int32 {
	index := indices(l.Data.Len())
	if l.Train {
		shuffle(index, rand.New(rand.NewPCG(l.Seed, streamOrder+uint64(epoch))))
	}
	return index
}

func (p *pipeline) work(ctx context.Context) {
	pcg := rand.NewPCG(0, 0)
	r := rand.New(pcg)
	for j := range p.jobs {
		var err error
		i := j.lo
		for ; i < j.hi && err == nil && ctx.Err() == nil; i++ {
			err = p.image(j.slot, i, pcg, r)
		}
		j.slot.finish(i-1, err)
	}
}

// image makes image i of the batch.
func (p *pipeline) image(s *slot, i int, pcg *rand.PCG, r *rand.Rand) error {
	l, k, n := p.loader, int(s.index[i]), p.shape.Numel()
	im, err := l.Data.Image(k)
	if err != nil {
		return err
	}
	s.labels[i] = int64(l.Data.Label(k))
	dst := s.images[i*n : (i+1)*n]
	if l.Train {
		pcg.Seed(l.Seed, streamAugment+uint64(s.epoch)*uint64(l.Data.Len())+uint64(k))
		err = l.Augment.Apply(r, &im, l.Recipe, dst)
	} else {
		err = l.Recipe.Apply(&im, dst)
	}
	if err != nil {
		return fmt.Errorf("%s (%d×%d pixels; a recipe without height and width needs images of one size): %w",
			Name(l.Data, k), im.W, im.H, err)
	}
	return nil
}

// finish notes the end of a job, at position at with an error or without.
func (s *slot) finish(at int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.err == nil || at < s.errAt) {
		s.err, s.errAt = err, at
	}
	if s.pending--; s.pending == 0 {
		s.done <- struct{}{}
	}
}
