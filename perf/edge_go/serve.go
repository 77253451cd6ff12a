package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"
)

// The edge's own limits and deadlines.
const (
	bodyBytesMax    = 65536
	headDeadline    = 10 * time.Second
	requestDeadline = 15 * time.Second
	idleDeadline    = 60 * time.Second
	deliveryTimeout = 10 * time.Second
	inFlightMax     = 100_000
)

// server answers a request once Kafka has its update: in sync replicas all, idempotent.
type server struct {
	kafka      *kgo.Client
	topic      string
	partitions uint64
}

func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`address:port`")
	brokers := flags.String("brokers", "", "`address:port`, separated by commas")
	topic := flags.String("topic", "", "where updates go")
	partitions := flags.Uint64("partitions", 0, "of the topic, which has one shard")
	linger := flags.Duration("linger", 0, "how long a record waits for others")
	_ = flags.Parse(arguments)

	kafka, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.ClientID("edge_go"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(*linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(inFlightMax),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
	)
	if err != nil {
		return err
	}
	defer kafka.Close()
	server := &server{kafka, *topic, *partitions}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /api/v1/players/{subscription_id}", server.put)
	return listenUntilTold(*listen, &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headDeadline,
		ReadTimeout:       requestDeadline,
		IdleTimeout:       idleDeadline,
		// Counts from the end of the head, so it has room for body, delivery and the answer itself.
		WriteTimeout: requestDeadline + 2*deliveryTimeout,
	})
}

// listenUntilTold serves until SIGTERM or SIGINT, then answers what has begun.
func listenUntilTold(address string, web *http.Server) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		<-told.Done()
		within, cancel := context.WithTimeout(context.Background(), requestDeadline)
		defer cancel()
		err := web.Shutdown(within)
		if errors.Is(err, context.DeadlineExceeded) {
			err = web.Close()
		}
		ended <- err
	}()
	if err := printJSON(map[string]string{"msg": "listening", "address": listener.Addr().String(), "listens": "ingest"}); err != nil {
		return err
	}
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}

var success = []byte(`{"success":true}`)

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	if !isJSON(r.Header.Get("Content-Type")) {
		refuse(w, http.StatusUnsupportedMediaType, "the content type must be application/json")
		return
	}
	update, err := decode(r.PathValue("subscription_id"), http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, err.Error())
		return
	}
	rows := []uuid.UUID{update.subscription}
	if update.mirrorTo != nil {
		rows = append(rows, *update.mirrorTo)
	}
	records := make([]*kgo.Record, len(rows))
	for i, row := range rows {
		key := row.String()
		value, err := update.encode(key)
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		records[i] = &kgo.Record{
			Topic:     s.topic,
			Partition: int32(xxh3.Hash(update.app[:]) % s.partitions),
			Key:       []byte(key),
			Value:     value,
		}
	}
	if err := s.kafka.ProduceSync(r.Context(), records...).FirstErr(); err != nil {
		slog.Warn("not delivered", "error", err)
		refuse(w, http.StatusGatewayTimeout, "the outcome is unknown")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(success)
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}
