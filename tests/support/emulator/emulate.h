// Runs the kernels of perturb.cu on a CPU, thread by thread, so that they are tested without a GPU.
// Every thread of a cluster is a fiber. A barrier or a shuffle yields to the next fiber, and one pass
// over all fibers is one phase: sound, because the kernels synchronise uniformly (a fiber that ends
// while others go on is reported). Races cannot show here; compute-sanitizer looks for them on a GPU.
#pragma once
#include <setjmp.h>
#include <ucontext.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <vector>
#define __global__
#define __launch_bounds__(...)

namespace emulate {
struct Index { unsigned x, y, z; };
struct Fiber { ucontext_t context; jmp_buf here; std::vector<char> stack; bool begun, done; Index thread, block; unsigned rank; };
typedef std::map<const void*, std::vector<char>> Memory;  // by the variable's tag
inline std::vector<Fiber> fibers;
inline std::vector<Memory> shared;  // of each block of the cluster
inline std::vector<unsigned long long> exchanged;
inline jmp_buf scheduler;
inline Fiber* self;
inline Index grid, block;
inline size_t dynamic_bytes;
inline std::function<void()> body;

inline void fail(const char* what) { fprintf(stderr, "emulate: %s\n", what); abort(); }
// Contexts only begin a fiber; jumps switch between them, without the system calls of swapcontext.
inline void yield() { if (!_setjmp(self->here)) _longjmp(scheduler, 1); }
inline void entry() { body(); self->done = true; _longjmp(scheduler, 1); }
inline void resume(Fiber& f) {
  self = &f;
  if (_setjmp(scheduler)) return;
  if (f.begun) _longjmp(f.here, 1);
  f.begun = true;
  setcontext(&f.context);
}
inline char* memory(const void* tag, size_t bytes, unsigned rank) {
  std::vector<char>& found = shared[rank][tag];
  if (found.size() < bytes + 16) found.resize(bytes + 16, (char)0xee);  // what nobody wrote is no zero
  return found.data() + (16 - (size_t)found.data() % 16) % 16;
}
inline void run_cluster(unsigned first, unsigned y, unsigned threads) {
  for (Memory& m : shared) m.clear();
  for (size_t i = 0; i < fibers.size(); ++i) {
    Fiber& f = fibers[i];
    f.stack.resize(64 * 1024);
    f.begun = f.done = false;
    f.rank = i / threads;
    f.thread = {unsigned(i % threads), 0, 0};
    f.block = {first + f.rank, y, 0};
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, (void (*)())entry, 0);
  }
  for (size_t done = 0; done < fibers.size();) {
    done = 0;
    for (Fiber& f : fibers) {
      if (!f.done) resume(f);
      done += f.done;
    }
    if (done && done < fibers.size()) fail("some threads of a cluster ended at a barrier of the others");
  }
}
inline int run(unsigned gx, unsigned gy, unsigned threads, unsigned cluster, size_t bytes, std::function<void()> kernel) {
  grid = {gx, gy, 1};
  block = {threads, 1, 1};
  body = kernel;
  dynamic_bytes = bytes;
  fibers.resize(threads * cluster);
  shared.resize(cluster);
  exchanged.resize(threads * cluster);
  for (unsigned y = 0; y < gy; ++y)
    for (unsigned b = 0; b < gx; b += cluster) run_cluster(b, y, threads);
  return 0;
}
}  // namespace emulate

#define threadIdx (emulate::self->thread)
#define blockIdx (emulate::self->block)
#define gridDim (emulate::grid)
#define blockDim (emulate::block)
#define SHARED(type, name, count) \
  static const char name##_tag = 0; \
  type* name = (type*)emulate::memory(&name##_tag, (count) * sizeof(type), emulate::self->rank)
// Guarded at its end: an index beyond what the launch asked for is found.
#define DYNAMIC_SHARED(type, name) \
  struct name##_guarded { \
    type* data; size_t count; \
    type& operator[](size_t i) const { if (i >= count) emulate::fail("shared memory overrun"); return data[i]; } \
  } name = {(type*)emulate::memory(&emulate::dynamic_bytes, emulate::dynamic_bytes, emulate::self->rank), emulate::dynamic_bytes / sizeof(type)}

inline void __syncthreads() { emulate::yield(); }
template <class V> V __shfl_xor_sync(unsigned, V v, int distance) {
  const size_t i = emulate::self - emulate::fibers.data();
  memcpy(&emulate::exchanged[i], &v, sizeof v);
  emulate::yield();
  memcpy(&v, &emulate::exchanged[i ^ distance], sizeof v);
  emulate::yield();
  return v;
}

namespace torchfgsm {
template <class P> P load_once(const P* p) {
  if ((size_t)p % sizeof(P)) emulate::fail("misaligned load");
  return *p;
}
template <class P> P load(const P* p) { return load_once(p); }
template <class P> void store(P* p, const P& v) {
  if ((size_t)p % sizeof(P)) emulate::fail("misaligned store");
  *p = v;
}
inline unsigned cluster_rank() { return emulate::self->rank; }
inline void cluster_sync() { emulate::yield(); }
template <class V> V cluster_read(const V* mine, unsigned rank) {
  const unsigned here = emulate::self->rank;
  for (auto& variable : emulate::shared[here]) {
    const char *begin = variable.second.data(), *at = (const char*)mine;
    if (at >= begin && at < begin + variable.second.size())
      return *(const V*)emulate::memory(variable.first, sizeof(V), rank);
  }
  emulate::fail("cluster_read of what is not shared");
  return *mine;
}
}  // namespace torchfgsm
