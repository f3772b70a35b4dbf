package client

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"rskv/ipc"

	"github.com/vmihailenco/msgpack/v5"
)

// Answers about the daemon itself are maps of names, or lists of such: what a newer daemon adds is
// passed over, what an older one lacks is zero.

// flyMap waits for a flight of one request whose answer is a map of names.
func (c *Client) flyMap(ctx context.Context, f *flight) (map[string]any, error) {
	if err := c.fly(ctx, f); err != nil {
		return nil, err
	}
	defer f.release()
	return f.names()
}

// flyMaps is flyMap for an array of such maps.
func (c *Client) flyMaps(ctx context.Context, f *flight) ([]map[string]any, error) {
	if err := c.fly(ctx, f); err != nil {
		return nil, err
	}
	defer f.release()
	var all []map[string]any
	if err := f.named(ipc.KindArray, &all); err != nil {
		return nil, err
	}
	for _, m := range all {
		widen(m)
	}
	return all, nil
}

// names is the map of names that a landed flight of one request brought.
func (f *flight) names() (m map[string]any, err error) {
	err = f.named(ipc.KindMap, &m)
	widen(m)
	return m, err
}

// named decodes the answer of a landed flight of one request.
func (f *flight) named(kind ipc.Kind, v any) error {
	r, err := f.raw(0, kind)
	if err != nil {
		return err
	}
	if err := unmarshal(r.Rest(), v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// widen gives numbers the widest type of their kind, whatever size they were sent in.
func widen(v any) any {
	switch v := v.(type) {
	case int8, int16, int32:
		return reflect.ValueOf(v).Int()
	case uint8, uint16, uint32:
		return reflect.ValueOf(v).Uint()
	case float32:
		return float64(v)
	case map[string]any:
		for name, x := range v {
			v[name] = widen(x)
		}
	case []any:
		for i, x := range v {
			v[i] = widen(x)
		}
	}
	return v
}

// unmarshal is msgpack's, for bytes whose lengths and nesting were checked first: see ipc.Validate.
func unmarshal(b []byte, v any) error {
	if err := ipc.Validate(b); err != nil {
		return err
	}
	return msgpack.Unmarshal(b, v)
}

// number returns the unsigned integer under name; see unsigned.
func number(m map[string]any, name string) uint64 { return unsigned(m[name]) }

// unsigned is an integer; 0 if it is negative or something else.
func unsigned(v any) uint64 {
	switch v := v.(type) {
	case int64:
		return uint64(max(v, 0))
	case uint64:
		return v
	}
	return 0
}

// signed is an integer; what is negative is -1.
func signed(v any) int {
	if v, ok := v.(int64); ok && v < 0 {
		return -1
	}
	return int(unsigned(v))
}

// moment returns the time of that name, given in milliseconds of Unix time; 0 is the zero time.
func moment(m map[string]any, name string) time.Time {
	ms := number(m, name)
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}
