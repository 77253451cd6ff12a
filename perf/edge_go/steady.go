package main

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// result is what steady prints. A delay counts from when the request was due, so that a server that stalls is charged for
// those that had to wait meanwhile; late is how much of it was this client's own lateness.
type result struct {
	Sent     int64   `json:"sent"`
	Accepted int64   `json:"accepted"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	LateP99  float64 `json:"late_p99_ms"`
}

// load is one run. Each worker has a connection and takes the next request that is due.
type load struct {
	address        string
	requests       [][]byte
	due            chan time.Time
	measuredFrom   time.Time
	sent, accepted atomic.Int64
	lock           sync.Mutex
	delays         []time.Duration
}

// steady sends at a fixed rate whatever the answers do. The first requests, for warming up, are not measured.
func steady(arguments []string) error {
	flags := flag.NewFlagSet("steady", flag.ExitOnError)
	address := flags.String("address", "", "`address:port` of the server")
	rate := flags.Int("rate", 2000, "requests a second")
	seconds := flags.Int("seconds", 10, "measured")
	warm := flags.Int("warm", 2, "seconds before that")
	connections := flags.Int("connections", 64, "kept alive")
	_ = flags.Parse(arguments)

	total := *rate * (*warm + *seconds)
	run := &load{address: *address, requests: requests(*address), due: make(chan time.Time, total)}
	failed := make(chan error, *connections)
	workers := sync.WaitGroup{}
	for range *connections {
		conn, err := dial(*address, nil)
		if err != nil {
			return err
		}
		workers.Go(func() {
			if err := run.work(conn); err != nil {
				failed <- err
			}
		})
	}
	began := time.Now()
	run.measuredFrom = began.Add(time.Duration(*warm) * time.Second)
	late := run.pace(began, *rate, total)
	close(run.due)
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	slices.Sort(run.delays)
	slices.Sort(late)
	return printJSON(result{
		run.sent.Load(), run.accepted.Load(),
		quantile(run.delays, 0.5), quantile(run.delays, 0.99), quantile(run.delays, 1), quantile(late, 0.99),
	})
}

// pace says when each request is due, and returns how late it was in saying so. The runtime's own timers are rounded to
// milliseconds while it is idle, so this thread sleeps by itself.
func (l *load) pace(began time.Time, rate, total int) (late []time.Duration) {
	runtime.LockOSThread()
	late = make([]time.Duration, total)
	for i := range total {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			pause := syscall.NsecToTimespec(wait.Nanoseconds())
			_ = syscall.Nanosleep(&pause, nil)
		}
		late[i] = time.Since(due)
		l.due <- due
	}
	return late
}

func (l *load) work(conn *connection) error {
	defer conn.Close()
	var delays []time.Duration
	for due := range l.due {
		request := l.requests[rand.IntN(len(l.requests))]
		if err := conn.exchange(request, &l.sent, &l.accepted); err != nil {
			return err
		}
		if !due.Before(l.measuredFrom) {
			delays = append(delays, time.Since(due))
		}
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	l.delays = append(l.delays, delays...)
	return nil
}

// quantile is in milliseconds.
func quantile(sorted []time.Duration, of float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	index := min(int(of*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[index].Microseconds()) / 1000
}
