// gobwas/ws, as its README has it for many connections: the zero-copy upgrade on the bare socket, a goroutine for each
// connection, a frame compiled once for all.
//
//	gobwas PORT HEARTBEAT_SECONDS
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

type subscriber struct {
	sync.Mutex
	net.Conn
}

// Write keeps frames whole: broadcasts, pings and the answers to control frames come from different goroutines.
func (s *subscriber) Write(bytes []byte) (int, error) {
	s.Lock()
	defer s.Unlock()
	return s.Conn.Write(bytes)
}

var (
	mutex       sync.Mutex
	subscribers = map[*subscriber]struct{}{}
)

func toAll(frame []byte) {
	mutex.Lock()
	defer mutex.Unlock()
	for each := range subscribers {
		_, _ = each.Write(frame)
	}
}

func serve(conn net.Conn) {
	defer conn.Close()
	path := ""
	upgrader := ws.Upgrader{OnRequest: func(uri []byte) error { path = string(uri); return nil }}
	if _, err := upgrader.Upgrade(conn); err != nil {
		return
	}
	all := &subscriber{Conn: conn}
	if path == "/sub" {
		mutex.Lock()
		subscribers[all] = struct{}{}
		mutex.Unlock()
		defer func() {
			mutex.Lock()
			delete(subscribers, all)
			mutex.Unlock()
		}()
	}
	for {
		payload, opcode, err := wsutil.ReadClientData(all)
		if err != nil {
			return
		}
		switch path {
		case "/echo":
			if wsutil.WriteServerMessage(all, opcode, payload) != nil {
				return
			}
		case "/pub":
			toAll(ws.MustCompileFrame(ws.NewFrame(opcode, true, payload)))
		}
	}
}

func main() {
	heartbeat, _ := strconv.Atoi(os.Args[2])
	if heartbeat > 0 {
		go func() {
			for range time.Tick(time.Duration(heartbeat) * time.Second) {
				toAll(ws.CompiledPing)
			}
		}()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go serve(conn)
	}
}
