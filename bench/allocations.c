/* How often Python asks for memory, and for how many bytes: stands before the allocators of all three domains, counts, and
   hands on. What an allocator asks of another one (pymalloc has large blocks from the raw one) is part of the same request.

   `begin()` is called once, before there are threads that ask without the GIL. Then `requests` and `bytes` rise for ever.
   Declared here as the Python/C API has them (documentation, "Customize Memory Allocators"; the same since 3.5), so that a
   Python without its headers, and a compiler without a C library's, are enough. */
#include <stddef.h>

typedef struct {
  void *ctx;
  void *(*malloc)(void *ctx, size_t size);
  void *(*calloc)(void *ctx, size_t count, size_t size);
  void *(*realloc)(void *ctx, void *block, size_t size);
  void (*free)(void *ctx, void *block);
} PyMemAllocatorEx;

enum { RAW, MEM, OBJ, DOMAINS };
extern void PyMem_GetAllocator(int domain, PyMemAllocatorEx *allocator);
extern void PyMem_SetAllocator(int domain, PyMemAllocatorEx *allocator);

unsigned long long requests, bytes;
static PyMemAllocatorEx behind[DOMAINS];
static __thread int within;

static void *counted(void *block, size_t size) {
  within--;
  if (block && !within) {
    __atomic_fetch_add(&requests, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&bytes, size, __ATOMIC_RELAXED);
  }
  return block;
}

static void *counted_malloc(void *ctx, size_t size) {
  PyMemAllocatorEx *to = ctx;
  within++;
  return counted(to->malloc(to->ctx, size), size);
}

static void *counted_calloc(void *ctx, size_t count, size_t size) {
  PyMemAllocatorEx *to = ctx;
  within++;
  return counted(to->calloc(to->ctx, count, size), count * size);
}

static void *counted_realloc(void *ctx, void *block, size_t size) {
  PyMemAllocatorEx *to = ctx;
  within++;
  return counted(to->realloc(to->ctx, block, size), size);
}

static void handed_on(void *ctx, void *block) {
  PyMemAllocatorEx *to = ctx;
  to->free(to->ctx, block);
}

void begin(void) {
  for (int domain = RAW; domain < DOMAINS; domain++) {
    PyMemAllocatorEx before = {&behind[domain], counted_malloc, counted_calloc, counted_realloc, handed_on};
    PyMem_GetAllocator(domain, &behind[domain]);
    PyMem_SetAllocator(domain, &before);
  }
}
