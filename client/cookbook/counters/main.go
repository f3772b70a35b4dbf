// Command counters counts page views, of all time and by day, from many goroutines, and reads them
// back: counters are added to where they are stored, so that nobody has to read one to change it.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"sync"
	"time"

	"rskv/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	pages, days := []string{"/", "/docs", "/about"}, []string{"2026-11-25", "2026-11-26"}
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			if err := view(ctx, c, pages[i%3], days[i%2]); err != nil {
				log.Fatal(err)
			}
		})
	}
	all.Wait()
	for _, page := range pages {
		counts, err := read(ctx, c, totalKey(page), dayKey(page, days[0]), dayKey(page, days[1]))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(page, counts)
	}
}

func totalKey(page string) []byte    { return []byte("views:" + page) }
func dayKey(page, day string) []byte { return []byte("views:" + day + ":" + page) }

// view counts one view: both counters in one round trip.
func view(ctx context.Context, c *client.Client, page, day string) error {
	b := c.NewBatch()
	b.Add(totalKey(page), 1)
	b.Add(dayKey(page, day), 1)
	if err := b.Do(ctx); err != nil {
		return err
	}
	for i := range b.Len() {
		if err := b.Err(i); err != nil {
			return err
		}
	}
	return nil
}

// read returns several counters. One that is not there counts 0; the others are eight bytes,
// little-endian.
func read(ctx context.Context, c *client.Client, keys ...[]byte) ([]int64, error) {
	values, err := c.MGet(ctx, keys)
	if err != nil {
		return nil, err
	}
	counts := make([]int64, len(values))
	for i, v := range values {
		if len(v) == 8 {
			counts[i] = int64(binary.LittleEndian.Uint64(v))
		}
	}
	return counts, nil
}
