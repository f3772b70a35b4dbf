package client

// LoneAfter is for tests of callers who are alone.
const LoneAfter = loneAfter

// Reader tells who reads from the connection.
func (c *Client) Reader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return [...]string{readRun: "run", readOpen: "nobody", readCaller: "caller"}[c.mu.lone.reading]
}
