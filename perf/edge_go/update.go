package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"
)

// update is a checked request. Numbers of tags are as they were written.
type update struct {
	subscription, app uuid.UUID
	mirrorTo          *uuid.UUID
	tags              map[string]any
	counts            map[string]int64
}

// decode takes what the edge takes: no unknown keys, ids that are UUIDs, tags that are scalars, counts that are integers.
func decode(subscription string, body io.Reader) (*update, error) {
	var written struct {
		AppID    string           `json:"app_id"`
		Tags     map[string]any   `json:"tags"`
		Counts   map[string]int64 `json:"counts"`
		MirrorTo *string          `json:"mirror_to"`
	}
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&written); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	for name, value := range written.Tags {
		switch value.(type) {
		case map[string]any, []any:
			return nil, fmt.Errorf("tags: %q is not a string, a number, a boolean or null", name)
		}
	}
	update := &update{tags: written.Tags, counts: written.Counts}
	var err error
	if update.subscription, err = uuid.Parse(subscription); err != nil {
		return nil, fmt.Errorf("subscription_id: %w", err)
	}
	if update.app, err = uuid.Parse(written.AppID); err != nil {
		return nil, fmt.Errorf("app_id: %w", err)
	}
	if written.MirrorTo != nil {
		row, err := uuid.Parse(*written.MirrorTo)
		if err != nil {
			return nil, fmt.Errorf("mirror_to: %w", err)
		}
		update.mirrorTo = &row
	}
	return update, nil
}

// encode writes the update on the wire for one of its rows.
func (u *update) encode(row string) ([]byte, error) {
	return json.Marshal(struct {
		App          string           `json:"app_id"`
		Subscription string           `json:"subscription_id"`
		Tags         map[string]any   `json:"tags,omitempty"`
		Counts       map[string]int64 `json:"counts,omitempty"`
	}{u.app.String(), row, u.tags, u.counts})
}

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail,
	})
}
