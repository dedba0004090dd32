/* The floor of a fan-out: what it costs to hand the same bytes to as many sockets, one send() each, and nothing else.

   fan_out PORT: takes connections on 127.0.0.1, answers whatever they ask with a head, and reads commands from its input:
     "EVENTS MICROSECONDS FRAME_BYTES AT_ONCE": so many events go to every connection, each to AT_ONCE of them, that time
     later to the next ones, and so on round. Prints a line after it.
   It is compiled where the benchmark runs; the benchmark reads its CPU time as it does that of others. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 20000

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static int connections[MOST], count;

static void take(int listener) {
  char request[4096];
  int one = 1, fd = accept(listener, NULL, NULL);
  if (fd < 0 || count == MOST) exit(1);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (read(fd, request, sizeof request) <= 0) exit(1);
  if (send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0) exit(1);
  connections[count++] = fd;
}

static void wait_until(struct timespec *moment, long nanoseconds) {
  moment->tv_nsec += nanoseconds;
  while (moment->tv_nsec >= 1000000000L) moment->tv_nsec -= 1000000000L, moment->tv_sec++;
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, moment, NULL);
}

/* One chunk with one frame, whose id is `seq`. */
static int chunk(char *buffer, long frame_bytes, long seq) {
  char id[32], size[16];
  int id_length = sprintf(id, "\nid: %ld\n\n", seq);
  int head_length = sprintf(size, "%lx\r\n", frame_bytes);
  memcpy(buffer, size, head_length);
  memset(buffer + head_length, 'x', frame_bytes);
  memcpy(buffer + head_length, "data: ", 6);
  memcpy(buffer + head_length + frame_bytes - id_length, id, id_length);
  memcpy(buffer + head_length + frame_bytes, "\r\n", 2);
  return head_length + frame_bytes + 2;
}

int main(int argc, char **argv) {
  static char buffer[1 << 20];
  static long seq;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  if (argc != 2) return 2;
  address.sin_port = htons(atoi(argv[1]));
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
  puts("ready");
  fflush(stdout);
  struct pollfd both[2] = {{listener, POLLIN, 0}, {0, POLLIN, 0}};
  for (;;) {
    poll(both, 2, -1);
    if (both[0].revents) take(listener);
    if (!both[1].revents) continue;
    long events, microseconds, frame_bytes, at_once;
    char line[128];
    ssize_t got = read(0, line, sizeof line - 1);
    if (got <= 0) return 0;
    line[got] = 0;
    if (sscanf(line, "%ld %ld %ld %ld", &events, &microseconds, &frame_bytes, &at_once) != 4 || frame_bytes < 64 || at_once < 1) return 2;
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    for (long n = 0; n < events; n++) {
      int length = chunk(buffer, frame_bytes, ++seq);
      for (int i = 0; i < count; i++) {
        if (send(connections[i], buffer, length, MSG_NOSIGNAL) != length) return 1;
        if ((i + 1) % at_once == 0 || i + 1 == count) wait_until(&moment, microseconds * 1000);
      }
    }
    puts("done");
    fflush(stdout);
  }
}
