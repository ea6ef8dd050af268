// uWebSockets, the C++ core itself, on one thread, as its examples have it: no TLS, no compression, its own publish/subscribe.
//
//     uws PORT HEARTBEAT_SECONDS

#include "App.h"
#include <cstdio>
#include <cstdlib>

struct Nothing {};
using Socket = uWS::WebSocket<false, true, Nothing>;

// uWebSockets pings some time before its idle timeout (WebSocketContextData::calculateIdleTimeoutComponents): the timeout at
// which that is after `heartbeat` seconds.
static unsigned short idle_timeout(unsigned short heartbeat) {
    for (unsigned short timeout = 8; heartbeat != 0 && timeout <= 960; timeout++) {
        unsigned short margin = 4;
        while (timeout - margin >= margin * 2 && margin < 16) margin *= 2;
        if (timeout - margin == heartbeat) return timeout;
    }
    return 0;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 0;
    unsigned short timeout = idle_timeout(argc > 2 ? (unsigned short) atoi(argv[2]) : 0);
    uWS::App app;
    app.ws<Nothing>("/echo", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = timeout,
        .maxBackpressure = 16 * 1024 * 1024,
        .message = [](Socket *socket, std::string_view message, uWS::OpCode opcode) { socket->send(message, opcode); },
    });
    app.ws<Nothing>("/sub", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = timeout,
        .maxBackpressure = 1024 * 1024,
        .open = [](Socket *socket) { socket->subscribe("load"); },
    });
    app.ws<Nothing>("/pub", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = 0,
        .message = [&app](Socket *, std::string_view message, uWS::OpCode opcode) { app.publish("load", message, opcode); },
    });
    app.listen("127.0.0.1", port, [port](auto *listening) {
        if (!listening) exit(1);
        printf("listening on 127.0.0.1:%d\n", port);
        fflush(stdout);
    }).run();
}
