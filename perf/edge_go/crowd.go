package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	openingAtOnce = 64
	trickleEvery  = time.Second
	retryAfter    = time.Second
	lookEvery     = 100 * time.Millisecond
	openWithin    = 60 * time.Second
)

var headEnd = []byte("\r\n\r\n")

// crowd keeps connections open that want little: idle ones made one request and stay, slow ones send a byte a second, half of
// them of a head, half of a body. What the server closes is opened again.
type crowd struct {
	address  string
	requests [][]byte
	sources  int
	opening  chan struct{}

	// Idle ones that were answered, and slow ones that were opened.
	open atomic.Int64
	// Requests of the idle ones.
	sent, accepted atomic.Int64
	// Closed by the server: after 408, and without an answer.
	timedOut, closed atomic.Int64
	failed           atomic.Int64
}

// gather prints a line when all are open, and one when it is told to end.
func gather(arguments []string) error {
	flags := flag.NewFlagSet("crowd", flag.ExitOnError)
	address := flags.String("address", "", "`address:port` of the server")
	idle := flags.Int("idle", 5000, "connections that are kept alive")
	slow := flags.Int("slow", 5000, "connections that send a byte a second")
	sources := flags.Int("sources", 8, "addresses of this machine that they come from, so that ports suffice")
	_ = flags.Parse(arguments)

	crowd := &crowd{
		address: *address, requests: requests(*address), sources: *sources,
		opening: make(chan struct{}, openingAtOnce),
	}
	for i := range *idle {
		go crowd.keep(i, crowd.idle)
	}
	for i := range *slow {
		request := crowd.requests[i%len(crowd.requests)]
		prompt := 0
		if i%2 == 0 {
			prompt = bytes.Index(request, headEnd) + len(headEnd)
		}
		go crowd.keep(i, func(conn *connection) error { return crowd.trickle(conn, request, prompt) })
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	all := int64(*idle + *slow)
	for began := time.Now(); crowd.open.Load() < all; time.Sleep(lookEvery) {
		if time.Since(began) > openWithin {
			return fmt.Errorf("%d of %d connections are open, %d failed", crowd.open.Load(), all, crowd.failed.Load())
		}
	}
	if err := printJSON(map[string]int64{"open": crowd.open.Load()}); err != nil {
		return err
	}
	return printJSON(crowd.watch(told))
}

// watch looks at it until told to end.
func (c *crowd) watch(told <-chan os.Signal) map[string]int64 {
	var looks, open int64
	for {
		select {
		case <-told:
			// Accepted first: what is answered meanwhile counts as sent only.
			accepted := c.accepted.Load()
			return map[string]int64{
				"open_mean": open / max(looks, 1), "accepted": accepted, "sent": c.sent.Load(),
				"timed_out": c.timedOut.Load(), "closed": c.closed.Load(), "failed": c.failed.Load(),
			}
		case <-time.After(lookEvery):
			looks++
			open += c.open.Load()
		}
	}
}

// keep has connection number i open all the time.
func (c *crowd) keep(i int, use func(*connection) error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%c.sources))}
	for {
		c.opening <- struct{}{}
		conn, err := dial(c.address, from)
		<-c.opening
		if err == nil {
			err = use(conn)
			_ = conn.Close()
		}
		if err != nil {
			c.failed.Add(1)
			time.Sleep(retryAfter)
		}
	}
}

// idle returns when the server has closed the connection.
func (c *crowd) idle(conn *connection) error {
	request := c.requests[rand.IntN(len(c.requests))]
	if err := conn.exchange(request, &c.sent, &c.accepted); err != nil {
		return err
	}
	c.open.Add(1)
	defer c.open.Add(-1)
	_ = conn.SetReadDeadline(time.Time{})
	_, _ = conn.reader.ReadByte()
	c.closed.Add(1)
	return nil
}

// trickle sends so many bytes at once, and then one a second until the server has had enough, which is before the last.
func (c *crowd) trickle(conn *connection, request []byte, prompt int) error {
	c.open.Add(1)
	defer c.open.Add(-1)
	if _, err := conn.Write(request[:prompt]); err != nil {
		return err
	}
	for i := prompt; i < len(request)-1; i++ {
		if _, err := conn.Write(request[i : i+1]); err != nil {
			c.closed.Add(1)
			return nil
		}
		// Waits for the next byte's turn, or for the server's last word.
		_ = conn.SetReadDeadline(time.Now().Add(trickleEvery))
		_, err := conn.reader.Peek(1)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			continue
		}
		if status, err := conn.answer(); err == nil && status == http.StatusRequestTimeout {
			c.timedOut.Add(1)
		} else {
			c.closed.Add(1)
		}
		return nil
	}
	return errors.New("the server waited for ever")
}
