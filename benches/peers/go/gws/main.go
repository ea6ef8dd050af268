// lxzan/gws, as its README has it: net/http for the handshake, a goroutine for each connection, its Broadcaster.
//
//	gws PORT HEARTBEAT_SECONDS
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/lxzan/gws"
)

var (
	mutex       sync.Mutex
	subscribers = map[*gws.Conn]struct{}{}
)

func each(visit func(*gws.Conn)) {
	mutex.Lock()
	defer mutex.Unlock()
	for conn := range subscribers {
		visit(conn)
	}
}

type handler struct {
	gws.BuiltinEventHandler
	path string
}

func (h *handler) OnOpen(conn *gws.Conn) {
	if h.path == "/sub" {
		mutex.Lock()
		subscribers[conn] = struct{}{}
		mutex.Unlock()
	}
}

func (h *handler) OnClose(conn *gws.Conn, _ error) {
	mutex.Lock()
	delete(subscribers, conn)
	mutex.Unlock()
}

func (h *handler) OnPing(conn *gws.Conn, payload []byte) { _ = conn.WritePong(payload) }

func (h *handler) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	switch h.path {
	case "/echo":
		_ = conn.WriteMessage(message.Opcode, message.Bytes())
	case "/pub":
		broadcaster := gws.NewBroadcaster(message.Opcode, append([]byte(nil), message.Bytes()...))
		defer broadcaster.Close()
		each(func(conn *gws.Conn) { _ = broadcaster.Broadcast(conn) })
	}
}

func main() {
	heartbeat, _ := strconv.Atoi(os.Args[2])
	if heartbeat > 0 {
		go func() {
			for range time.Tick(time.Duration(heartbeat) * time.Second) {
				each(func(conn *gws.Conn) { _ = conn.WritePing(nil) })
			}
		}()
	}
	upgraders := map[string]*gws.Upgrader{}
	for _, path := range []string{"/echo", "/sub", "/pub"} {
		upgraders[path] = gws.NewUpgrader(&handler{path: path}, &gws.ServerOption{Recovery: gws.Recovery})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening on", listener.Addr())
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader, ok := upgraders[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if conn, err := upgrader.Upgrade(w, r); err == nil {
			go conn.ReadLoop()
		}
	})))
}
