package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	apps          = 16
	rows          = 10_000
	answerTimeout = 30 * time.Second
)

// requests are updates of a fixed set of rows, about 150 bytes each: the same as those of edge.lua.
func requests(address string) [][]byte {
	seeded := rand.New(rand.NewPCG(1, 1))
	apps := [apps]uuid.UUID{}
	for i := range apps {
		apps[i] = randomID(seeded)
	}
	all := make([][]byte, rows)
	for i := range all {
		body := fmt.Sprintf(`{"app_id":"%s","tags":{"first_name":"Jon","plan":"team","level":%d,"last_page":"/checkout"},"counts":{"sessions":1}}`,
			apps[i%len(apps)], i%100)
		all[i] = append(head(address, randomID(seeded), len(body)), body...)
	}
	return all
}

func randomID(from *rand.Rand) (id uuid.UUID) {
	for i := range id {
		id[i] = byte(from.Uint32())
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

func head(address string, row uuid.UUID, bodyBytes int) []byte {
	return fmt.Appendf(nil, "PUT /api/v1/players/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		row, address, bodyBytes)
}

// connection is a client's, with what has been read ahead.
type connection struct {
	net.Conn
	reader *bufio.Reader
}

func dial(address string, from net.Addr) (*connection, error) {
	conn, err := (&net.Dialer{Timeout: answerTimeout, LocalAddr: from}).Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReaderSize(conn, 512)}, nil
}

// exchange sends a request and waits for its answer, which must be 200.
func (c *connection) exchange(request []byte, sent, accepted *atomic.Int64) error {
	sent.Add(1)
	if _, err := c.Write(request); err != nil {
		return err
	}
	status, err := c.answer()
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return errors.New("refused: " + http.StatusText(status))
	}
	accepted.Add(1)
	return nil
}

// answer reads one whole answer and returns its status.
func (c *connection) answer() (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}
