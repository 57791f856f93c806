package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Seal makes an envelope. Its payload must be one of this package's types;
// anything that can't be marshalled is a programming error and panics.
func Seal(id, typ string, payload any) Envelope {
	raw, err := json.Marshal(payload)
	if err != nil {
		panic(fmt.Sprintf("protocol: payload of %s: %v", typ, err))
	}
	return Envelope{ID: id, Type: typ, Payload: raw}
}

// Open parses one frame. The error says what is malformed, for both logs.
func Open(frame []byte) (Envelope, error) {
	var e Envelope
	dec := json.NewDecoder(bytes.NewReader(frame))
	if err := dec.Decode(&e); err != nil {
		return Envelope{}, fmt.Errorf("envelope is not JSON: %w", err)
	}
	if dec.More() {
		return Envelope{}, errors.New("envelope: more than one JSON value in a frame")
	}
	return e, e.Check()
}

// Check says what is malformed in an envelope.
func (e Envelope) Check() error {
	if e.Type == "" {
		return errors.New("envelope: type is missing")
	}
	if len(e.ID) > 200 || len(e.Type) > 100 {
		return errors.New("envelope: id or type is too long")
	}
	return nil
}

// Decode reads the payload into one of this package's types.
func Decode[T any](e Envelope) (T, error) {
	var v T
	if len(e.Payload) == 0 {
		return v, fmt.Errorf("%s: payload is missing", e.Type)
	}
	if err := json.Unmarshal(e.Payload, &v); err != nil {
		return v, fmt.Errorf("%s: payload: %w", e.Type, err)
	}
	return v, nil
}
