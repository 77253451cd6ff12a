// Command edge_go is what perf/edge measures with: a plain server to stand beside the edge, and the clients that wrk is not.
//
//	edge_go serve    the edge's update route as a plain net/http server over franz-go
//	edge_go steady   requests at a fixed rate, each delay counted from the time when it was due
//	edge_go crowd    idle and slow connections
//
// The file of each says what it does. Results are JSON lines on stdout.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{"serve": serve, "steady": steady, "crowd": gather}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: edge_go serve|steady|crowd [OPTION]...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "edge_go:", err)
		os.Exit(1)
	}
}

func printJSON(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
