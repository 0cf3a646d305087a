// One turn of an attack: x, its gradient and bounds in, the adversarial example out.
//   perturb_linf    plain L-inf, flat over the batch: one read of x and of the gradient, one write.
//   perturb_rows    an example stays on the chip, in the shared memory of a block or (from sm_90) of a
//                   cluster of blocks that read each other's sums.
//   perturb_partial, perturb_apply   examples of any size, and norms over several inputs.
// No atomics: every sum has a fixed order, so that results repeat bit for bit. `FULL` kernels take
// whatever a recipe can ask for; the others a number as step and bounds and no origin, and are tuned.
#include "arithmetic.h"
#ifdef TORCHFGSM_EMULATE
#include "emulate.h"
#else
#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name) extern __shared__ int4 dynamic_shared[]; type* name = (type*)dynamic_shared
#endif

namespace torchfgsm {

constexpr int THREADS = 512;  // of the largest block

// A number, or a tensor that is read at row * row_stride + column * column_stride; the latter is 0 or 1.
struct Operand { const void* data; i64 row_stride, column_stride; double value; };
struct Args {
  const void *x, *grad, *origin;
  void* out;
  Operand step, radius, low, high, mask;
  Stat *directions, *projections;  // (rows, all_parts): what perturb_partial found
  i64 rows, columns;
  double guard;
  int norm, rules;
  int group, cluster, lane_bits;   // threads of a block, and blocks, that share one example; log2 of their product
  int parts, all_parts, first_part;  // of this input, of all inputs of the norm, where this one's begin
  int projecting;                  // perturb_partial: reduce the perturbation, not the gradient
};

template <class T, int VEC> struct alignas(sizeof(T) * VEC) Pack { T v[VEC]; };

#if defined(__CUDA_ARCH__)
// Entries that are read once need not stay in the caches.
template <class P> DEVICE P load_once(const P* p) {
  if constexpr (sizeof(P) == 16) { int4 r = __ldcs((const int4*)p); P v; memcpy(&v, &r, 16); return v; }
  else return *p;
}
template <class P> DEVICE P load(const P* p) {
  if constexpr (sizeof(P) == 16) { int4 r = *(const int4*)p; P v; memcpy(&v, &r, 16); return v; }
  else return *p;
}
template <class P> DEVICE void store(P* p, const P& v) {
  if constexpr (sizeof(P) == 16) { int4 r; memcpy(&r, &v, 16); *(int4*)p = r; }
  else *p = v;
}
#if __CUDA_ARCH__ >= 900
DEVICE unsigned cluster_rank() { unsigned r; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r)); return r; }
DEVICE void cluster_sync() { asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory"); }
DEVICE Stat cluster_read(const Stat* mine, unsigned rank) {  // the same variable of another block
  unsigned here = (unsigned)__cvta_generic_to_shared(mine), there;
  Stat s;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("ld.shared::cluster.f64 %0, [%1];" : "=d"(s.large) : "r"(there) : "memory");
  asm volatile("ld.shared::cluster.f64 %0, [%1+8];" : "=d"(s.middle) : "r"(there) : "memory");
  asm volatile("ld.shared::cluster.f64 %0, [%1+16];" : "=d"(s.small) : "r"(there) : "memory");
  asm volatile("ld.shared::cluster.s64 %0, [%1+24];" : "=l"(s.ties) : "r"(there) : "memory");
  return s;
}
#else  // the launch plan asks for no clusters here
DEVICE unsigned cluster_rank() { return 0; }
DEVICE void cluster_sync() {}
DEVICE Stat cluster_read(const Stat* mine, unsigned) { return *mine; }
#endif
#endif

DEVICE Stat shuffled(const Stat& s, int distance, int norm) {
  Stat r = s;
  r.middle = __shfl_xor_sync(0xffffffffu, s.middle, distance);
  if (norm == L1) { r.ties = __shfl_xor_sync(0xffffffffu, s.ties, distance); return r; }
  r.large = __shfl_xor_sync(0xffffffffu, s.large, distance);
  r.small = __shfl_xor_sync(0xffffffffu, s.small, distance);
  return r;
}
// Every thread of each `width` neighbours gets the same bits: both partners add the same two numbers.
DEVICE Stat over_threads(Stat s, int width, int norm) {
  for (int d = width / 2; d > 0; d /= 2) s = merged(s, shuffled(s, d, norm), norm);
  return s;
}

// Reduces over `group` neighbouring threads of each of `cluster` blocks; both are powers of two.
DEVICE Stat reduced(Stat s, int norm, int group, int cluster) {
  s = over_threads(s, group < 32 ? group : 32, norm);
  const int lane = threadIdx.x % 32;
  if (group > 32) {
    SHARED(Stat, of_warp, THREADS / 32);
    __syncthreads();  // an earlier reduction's partials have been read
    if (lane == 0) of_warp[threadIdx.x / 32] = s;
    __syncthreads();
    const int warps = group / 32, first = threadIdx.x / group * warps;
    s = nothing(norm);
    if (lane % 16 < warps) s = of_warp[first + lane % 16];
    s = over_threads(s, 16, norm);
  }
  if (cluster > 1) {
    SHARED(Stat, of_block, 1);
    if (threadIdx.x == 0) of_block[0] = s;
    cluster_sync();
    s = nothing(norm);
    if (lane % 8 < cluster) s = cluster_read(of_block, lane % 8);
    s = over_threads(s, 8, norm);
    cluster_sync();  // other blocks may still be reading this one's partial
  }
  return s;
}

// ---- one vector of one example, and the operands at it ------------------------------------------
template <class T, int VEC> struct Values {
  typename Wide<T>::type v[VEC];
  DEVICE void load(const Operand& o, i64 row, i64 column) {
    const T* at = (const T*)o.data + row * o.row_stride + column * o.column_stride;
    if (o.data && o.column_stride) {
      const Pack<T, VEC> p = torchfgsm::load((const Pack<T, VEC>*)at);
#pragma unroll
      for (int j = 0; j < VEC; ++j) v[j] = widen(p.v[j]);
    } else {
      const typename Wide<T>::type one = o.data ? widen(*at) : typename Wide<T>::type(o.value);
#pragma unroll
      for (int j = 0; j < VEC; ++j) v[j] = one;
    }
  }
};

template <class T, int VEC, bool FULL> struct Vector {
  typedef typename Wide<T>::type A;
  typedef Pack<T, VEC> P;
  const Args& a;
  i64 row, column;
  DEVICE Vector(const Args& args, i64 r, i64 c) : a(args), row(r), column(c) {}
  DEVICE i64 at() const { return row * a.columns + column; }
  DEVICE P read(const void* tensor) const { return load_once((const P*)((const T*)tensor + at())); }
  DEVICE P keep(const void* tensor) const { return load((const P*)((const T*)tensor + at())); }
  DEVICE void write(const P& r) const { store((P*)((T*)a.out + at()), r); }
  DEVICE Values<T, VEC> values(const Operand& o) const {
    Values<T, VEC> r;
    if constexpr (FULL) r.load(o, row, column);
    else {
#pragma unroll
      for (int j = 0; j < VEC; ++j) r.v[j] = A(o.value);
    }
    return r;
  }

  // The gradient as its direction is computed from it.
  DEVICE P condition(const P& g) const {
    Values<T, VEC> mask = {}, low = {}, high = {};
    P r, x = g;
    if constexpr (FULL) {
      mask = values(a.mask);
      if (a.rules & CLIP_GRAD) { x = keep(a.x); low = values(a.low); high = values(a.high); }
    }
#pragma unroll
    for (int j = 0; j < VEC; ++j) {
      A v = without_nonfinite(A(widen(g.v[j])), a.rules);
      if constexpr (FULL) v = conditioned<T, A>(v, mask.v[j], widen(x.v[j]), low.v[j], high.v[j], a.rules);
      r.v[j] = narrow<T>(v);
    }
    return r;
  }

  // x after a step along the direction of the conditioned gradient g. `factor` is what an L2 ball
  // shrinks the perturbation by, which takes the norm of what `perturb` gives.
  DEVICE P move(const P& x, const P& g, const Direction<A>& d, A factor, int norm) const {
    const Values<T, VEC> step = values(a.step), low = values(a.low), high = values(a.high);
    Values<T, VEC> radius = {};
    P r, from = x;
    if constexpr (FULL) {
      if (a.origin != a.x) from = keep(a.origin);
      if (a.rules & PROJECT) radius = values(a.radius);
    }
#pragma unroll
    for (int j = 0; j < VEC; ++j) {
      const Element<A> e = {widen(x.v[j]), widen(from.v[j]), step.v[j], low.v[j], high.v[j]};
      r.v[j] = narrow<T>(moved<T, A>(e, direction<T, A>(widen(g.v[j]), d, norm, a.rules), radius.v[j], factor, norm, a.rules));
    }
    return r;
  }

  // The perturbation that an L2 ball is to hold.
  DEVICE P perturb(const P& x, const P& g, const Direction<A>& d) const {
    const Values<T, VEC> step = values(a.step), low = values(a.low), high = values(a.high);
    const P from = keep(a.origin);
    P r;
#pragma unroll
    for (int j = 0; j < VEC; ++j) {
      const Element<A> e = {widen(x.v[j]), widen(from.v[j]), step.v[j], low.v[j], high.v[j]};
      r.v[j] = narrow<T>(perturbation<T, A>(e, direction<T, A>(widen(g.v[j]), d, a.norm, a.rules), a.rules));
    }
    return r;
  }
  DEVICE A factor(const Stat& s) const {
    Values<T, 1> radius;
    radius.load(a.radius, row, 0);
    return shrinkage<A>(s, a.guard, radius.v[0]);
  }
};

template <class T, int VEC> DEVICE void add_all(Stat& s, const Pack<T, VEC>& p, int norm) {
#pragma unroll
  for (int j = 0; j < VEC; ++j) add(s, widen(p.v[j]), norm);
}

// Uses `read(i)` for i = first, first + stride, ... below `count`. AHEAD values are read before the
// first is used: a store might change what is read next, as far as the compiler can tell.
template <int AHEAD, class I, class Read, class Use>
DEVICE void each(I first, I count, I stride, Read read, Use use) {
  for (I i = first; i < count; i += AHEAD * stride) {
    decltype(read(i)) values[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; ++u)
      if (i + u * stride < count) values[u] = read(i + u * stride);
#pragma unroll
    for (int u = 0; u < AHEAD; ++u)
      if (i + u * stride < count) use(i + u * stride, values[u]);
  }
}
template <class P> struct Pair { P x, g; };

// ---- L-inf, plain -------------------------------------------------------------------------------
template <class T, int VEC> DEVICE void flat(const Args& a, i64 first, i64 end) {
  typedef Vector<T, VEC, false> V;
  typedef Pair<typename V::P> Both;
  each<2>(first, end / VEC, (i64)gridDim.x * blockDim.x,
    [&](i64 i) { const V v(a, 0, i * VEC); return Both{v.read(a.x), v.read(a.grad)}; },
    [&](i64 i, const Both& b) { const V v(a, 0, i * VEC); v.write(v.move(b.x, v.condition(b.g), {}, 1, LINF)); });
}
template <class T, int VEC>
__global__ void __launch_bounds__(256, 2) perturb_linf(const Args a) {
  const i64 total = a.rows * a.columns, thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  flat<T, VEC>(a, thread, total);
  if (VEC > 1) flat<T, 1>(a, total / VEC * VEC + thread, total);  // fewer than VEC are left over
}

// ---- examples that stay on the chip -------------------------------------------------------------
// `group` threads of each of `cluster` blocks own an example; each thread holds its own entries in
// shared memory, where no other reads them.
template <class T, int VEC, bool FULL>
__global__ void __launch_bounds__(THREADS, FULL ? 1 : 2) perturb_rows(const Args a) {
  typedef Vector<T, VEC, FULL> V;
  typedef typename V::A A;
  typedef typename V::P P;
  constexpr int AHEAD = FULL ? 1 : 2;
  DYNAMIC_SHARED(P, shared);
  const int lanes = a.group * a.cluster, thread = threadIdx.x % a.group, rank = a.cluster > 1 ? cluster_rank() : 0;
  // The warps of a cluster's blocks take turns, so that each block holds an equal share.
  const int lane = thread / 32 * 32 * a.cluster + rank * 32 + thread % 32;
  const i64 row = (i64)(blockIdx.x / a.cluster) * (blockDim.x / a.group) + threadIdx.x / a.group;
  // Threads without an example have no vectors but take part in the reductions.
  const int vectors = row < a.rows ? int(a.columns / VEC) : 0;
  const auto held = [&](int i) { return &shared[(i >> a.lane_bits) * blockDim.x + threadIdx.x]; };

  Stat s = nothing(a.norm);
  each<AHEAD>(lane, vectors, lanes, [&](int i) { return V(a, row, i * VEC).read(a.grad); },
    [&](int i, const P& g) {
      const P seen = V(a, row, i * VEC).condition(g);
      store(held(i), seen);
      if (a.norm != LINF) add_all<T, VEC>(s, seen, a.norm);
    });
  if (a.norm != LINF) s = reduced(s, a.norm, a.group, a.cluster);
  const Direction<A> d = direction_of<A>(s, a.norm, a.guard);
  A factor = 1;
  if (FULL && a.norm == L2 && (a.rules & PROJECT)) {
    s = nothing(L2);
    for (int i = lane; i < vectors; i += lanes) {
      const V v(a, row, i * VEC);
      add_all<T, VEC>(s, v.perturb(v.keep(a.x), load(held(i)), d), L2);
    }
    s = reduced(s, L2, a.group, a.cluster);
    if (vectors) factor = V(a, row, 0).factor(s);
  }
  each<AHEAD>(lane, vectors, lanes, [&](int i) { return V(a, row, i * VEC).read(a.x); },
    [&](int i, const P& x) {
      const V v(a, row, i * VEC);
      v.write(v.move(x, load(held(i)), d, factor, a.norm));
    });
}

// ---- examples of any size -----------------------------------------------------------------------
// What all blocks of perturb_partial found of an example, in every thread.
DEVICE Stat gathered(const Stat* parts, const Args& a, i64 row, int norm) {
  Stat s = nothing(norm);
  for (int p = threadIdx.x; p < a.all_parts; p += blockDim.x) s = merged(s, parts[row * a.all_parts + p], norm);
  return reduced(s, norm, blockDim.x, 1);
}

// Block p of `parts` reduces one contiguous chunk of each of its rows.
template <class T, int VEC>
__global__ void __launch_bounds__(256, 2) perturb_partial(const Args a) {
  typedef Vector<T, VEC, true> V;
  const i64 vectors = a.columns / VEC, chunk = (vectors + a.parts - 1) / a.parts, begin = blockIdx.x * chunk;
  const i64 end = begin + chunk < vectors ? begin + chunk : vectors;
  for (i64 row = blockIdx.y; row < a.rows; row += gridDim.y) {
    Direction<typename V::A> d = {};
    if (a.projecting) d = direction_of<typename V::A>(gathered(a.directions, a, row, a.norm), a.norm, a.guard);
    Stat s = nothing(a.norm);
    each<2>(begin + threadIdx.x, end, (i64)blockDim.x,
      [&](i64 i) { return V(a, row, i * VEC).keep(a.grad); },  // stays cached: perturb_apply reads it again
      [&](i64 i, const typename V::P& given) {
        const V v(a, row, i * VEC);
        const typename V::P g = v.condition(given);
        add_all<T, VEC>(s, a.projecting ? v.perturb(v.keep(a.x), g, d) : g, a.norm);
      });
    s = reduced(s, a.norm, blockDim.x, 1);
    if (threadIdx.x == 0) (a.projecting ? a.projections : a.directions)[row * a.all_parts + a.first_part + blockIdx.x] = s;
  }
}

template <class T, int VEC>
__global__ void __launch_bounds__(256, 2) perturb_apply(const Args a) {
  typedef Vector<T, VEC, true> V;
  typedef Pair<typename V::P> Both;
  for (i64 row = blockIdx.y; row < a.rows; row += gridDim.y) {
    Stat s = nothing(a.norm);
    if (a.norm != LINF) s = gathered(a.directions, a, row, a.norm);
    const Direction<typename V::A> d = direction_of<typename V::A>(s, a.norm, a.guard);
    typename V::A factor = 1;
    if (a.norm == L2 && (a.rules & PROJECT)) factor = V(a, row, 0).factor(gathered(a.projections, a, row, L2));
    each<2>((i64)blockIdx.x * blockDim.x + threadIdx.x, a.columns / VEC, (i64)gridDim.x * blockDim.x,
      [&](i64 i) { const V v(a, row, i * VEC); return Both{v.read(a.x), v.read(a.grad)}; },
      [&](i64 i, const Both& b) {
        const V v(a, row, i * VEC);
        v.write(v.move(b.x, v.condition(b.g), d, factor, a.norm));
      });
  }
}

}  // namespace torchfgsm
