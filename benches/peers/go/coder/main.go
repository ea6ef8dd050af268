// coder/websocket (once nhooyr's), as its examples have it: net/http, a goroutine for each connection, and for each subscriber
// a channel that its goroutine writes from (examples/chat).
//
//	coder PORT HEARTBEAT_SECONDS
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

type message struct {
	kind websocket.MessageType
	data []byte
}

var (
	mutex       sync.Mutex
	subscribers = map[chan message]struct{}{}
)

func subscribe(conn *websocket.Conn, heartbeat time.Duration) {
	messages := make(chan message, 256)
	mutex.Lock()
	subscribers[messages] = struct{}{}
	mutex.Unlock()
	defer func() {
		mutex.Lock()
		delete(subscribers, messages)
		mutex.Unlock()
	}()
	ctx := conn.CloseRead(context.Background())
	beat := make(<-chan time.Time)
	if heartbeat > 0 {
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		beat = ticker.C
	}
	for {
		select {
		case one := <-messages:
			if conn.Write(ctx, one.kind, one.data) != nil {
				return
			}
		case <-beat:
			if conn.Ping(ctx) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func main() {
	seconds, _ := strconv.Atoi(os.Args[2])
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening on", listener.Addr())
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(16 << 20)
		if r.URL.Path == "/sub" {
			subscribe(conn, time.Duration(seconds)*time.Second)
			return
		}
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			if r.URL.Path == "/echo" {
				if conn.Write(r.Context(), kind, data) != nil {
					return
				}
				continue
			}
			mutex.Lock()
			for each := range subscribers {
				select {
				case each <- message{kind, data}:
				default: // the example closes whoever is that slow; the load generator counts what is missing
				}
			}
			mutex.Unlock()
		}
	})))
}
