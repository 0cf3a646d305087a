// The arithmetic of one turn of an attack, element by element, as torchfgsm/reference.py writes it
// in torch. Every torch operation there rounds to the tensor's dtype, and so does every step here.
// No headers are included: NVRTC then needs no include path, and g++ builds the same text for tests.
#pragma once
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DEVICE __device__ __forceinline__
#else
#define DEVICE inline __attribute__((always_inline))
#endif

namespace torchfgsm {

typedef long long i64;
enum Norm { LINF = 0, L1 = 1, L2 = 2 };
enum Rule {
  ZERO_NONFINITE = 1,  // NaN and infinite gradient entries count as 0
  NAN_HAS_NO_SIGN = 2, // the sign of NaN is NaN (TensorFlow) and not 0 (torch)
  CLIP_GRAD = 4,       // entries at a bound whose step points outwards count as 0
  CLIP_FIRST = 8,      // order "clip_project_clip", else "project_clip"
  LOW_WINS = 16,       // where bounds cross, the value is the lower one, else the upper
  PROJECT = 32         // there is a ball to project to
};

// ---- storage types: half precision is 16 raw bits, its arithmetic is in float ----
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
template <class T> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };
union Word { float number; unsigned bits; };

DEVICE float widen(float v) { return v; }
DEVICE double widen(double v) { return v; }
DEVICE float widen(bf16 v) { Word w; w.bits = unsigned(v.bits) << 16; return w.number; }
DEVICE float widen(f16 v) {
#ifdef __CUDA_ARCH__
  float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits)); return r;
#else
  _Float16 h; __builtin_memcpy(&h, &v.bits, 2); return float(h);
#endif
}

template <class T> DEVICE T narrow(typename Wide<T>::type v) { return v; }
template <> DEVICE bf16 narrow<bf16>(float v) {  // to the nearest, ties to even; NaN stays NaN
  bf16 r;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(v));
#else
  Word w; w.number = v;
  r.bits = (unsigned short)(v == v ? (w.bits + 0x7fffu + ((w.bits >> 16) & 1u)) >> 16 : 0x7fc0u);
#endif
  return r;
}
template <> DEVICE f16 narrow<f16>(float v) {
  f16 r;
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(v));
#else
  _Float16 h = (_Float16)v; __builtin_memcpy(&r.bits, &h, 2);
#endif
  return r;
}
// What a torch operation on dtype T gives for an exact result `v`.
template <class T> DEVICE typename Wide<T>::type rounded(typename Wide<T>::type v) { return widen(narrow<T>(v)); }

// ---- comparisons are written so that NaN passes through ----
template <class A> DEVICE A magnitude(A v) { return v < A(0) ? -v : v; }
template <class A> DEVICE bool finite(A v) { return v - v == A(0); }
template <class A> DEVICE A clamp_low(A v, A low) { return v < low ? low : v; }
template <class A> DEVICE A clamp_high(A v, A high) { return v > high ? high : v; }
template <class A> DEVICE A clip(A v, A low, A high, int rules) {
  return rules & LOW_WINS ? clamp_low(clamp_high(v, high), low) : clamp_high(clamp_low(v, low), high);
}
template <class A> DEVICE A sign(A v, int rules) {
  return v > A(0) ? A(1) : v < A(0) ? A(-1) : v == A(0) || !(rules & NAN_HAS_NO_SIGN) ? A(0) : v;
}
#ifdef __CUDA_ARCH__
DEVICE double root(double v) { return __dsqrt_rn(v); }
#else
DEVICE double root(double v) { return __builtin_sqrt(v); }
#endif

// The gradient entry of which the direction is taken (`gradient.condition`).
template <class A> DEVICE A without_nonfinite(A g, int rules) { return (rules & ZERO_NONFINITE) && !finite(g) ? A(0) : g; }
template <class T, class A> DEVICE A conditioned(A g, A mask, A x, A low, A high, int rules) {
  g = rounded<T>(g * mask);
  const bool leaves = (x <= low && g < A(0)) || (x >= high && g > A(0));
  return (rules & CLIP_GRAD) && leaves ? A(0) : g;
}

// ---- what a norm must know of an example --------------------------------------------------------
// L1: the largest magnitude and how often it occurs. L2: the sum of squares, in double, so that the
// squares of float entries neither over- nor underflow; those of double entries are scaled as in
// LAPACK's dnrm2 (Blue 1978, doi 10.1145/355769.355771): large, middle and small ones apart.
struct Stat { double large, middle, small; i64 ties; };
constexpr double LARGE = 0x1p486, LARGE_SCALE = 0x1p-538, LARGE_BACK = 0x1p538;
constexpr double SMALL = 0x1p-511, SMALL_SCALE = 0x1p537, SMALL_BACK = 0x1p-537;

DEVICE Stat nothing(int norm) { Stat s = {0, norm == L1 ? -1.0 : 0.0, 0, 0}; return s; }  // -1 ties with no entry
DEVICE Stat merged(const Stat& a, const Stat& b, int norm) {
  Stat s = a;
  if (norm == L1) {
    const bool larger = b.middle > a.middle || b.middle != b.middle;  // NaN wins, as in torch.amax
    s.ties = larger ? b.ties : b.middle == a.middle ? a.ties + b.ties : a.ties;
    s.middle = larger ? b.middle : a.middle;
  } else {
    s.large += b.large; s.middle += b.middle; s.small += b.small;
  }
  return s;
}
DEVICE void add_square(Stat& s, float g) { s.middle += double(g) * double(g); }
DEVICE void add_square(Stat& s, double g) {
  const double size = magnitude(g);
  if (size > LARGE) s.large += (size * LARGE_SCALE) * (size * LARGE_SCALE);
  else if (size < SMALL) s.small += (size * SMALL_SCALE) * (size * SMALL_SCALE);
  else s.middle += size * size;
}
template <class A> DEVICE void add(Stat& s, A g, int norm) {
  if (norm == L1) { Stat one = {0, double(magnitude(g)), 0, 1}; s = merged(s, one, L1); }
  else add_square(s, g);
}

// The sum of squares in double, and as the dtype holds it: infinite where it overflows, as in torch.
DEVICE double sum_of(const Stat& s) { return s.large * LARGE_BACK * LARGE_BACK + s.middle + s.small * SMALL_BACK * SMALL_BACK; }
template <class A> DEVICE A squares(const Stat& s) { return A(sum_of(s)); }

// ---- directions ---------------------------------------------------------------------------------
// An L2 direction is g * before * factor; an L1 direction gives its share to each entry of size `largest`.
template <class A> struct Direction { A largest, share; double before, factor; };

template <class A> DEVICE Direction<A> direction_of(const Stat& s, int norm, double guard) {
  Direction<A> d = {A(s.middle), A(1), 1.0, 0.0};
  if (norm == L1) d.share = A(1) / A(s.ties);
  if (norm != L2) return d;
  double sum = sum_of(s);
  if (guard > 0) {
    const A held = squares<A>(s);
    if (!finite(held)) sum = held;
    sum = sum < guard ? guard : sum;
  } else if (s.large != 0) {  // small entries do not count beside large ones
    d.before = LARGE_SCALE;
    sum = s.large + s.middle * LARGE_SCALE * LARGE_SCALE;
  } else if (s.small != 0 && s.middle == 0) {
    d.before = SMALL_SCALE;
    sum = s.small;
  }
  d.factor = sum == 0 ? 0.0 : 1.0 / root(sum);
  return d;
}
template <class T, class A> DEVICE A direction(A g, const Direction<A>& d, int norm, int rules) {
  if (norm == LINF) return sign(g, rules);
  if (norm == L2) return rounded<T>(A(double(g) * d.before * d.factor));
  if (d.largest != d.largest) return d.largest;  // a row with NaN has no largest entry
  return magnitude(g) == d.largest ? rounded<T>(sign(g, rules) * d.share) : A(0);
}

// ---- the move -----------------------------------------------------------------------------------
template <class A> struct Element { A x, origin, step, low, high; };

// The perturbation that is projected.
template <class T, class A> DEVICE A perturbation(const Element<A>& e, A d, int rules) {
  const A step = rounded<T>(d * e.step);
  if (rules & CLIP_FIRST) return rounded<T>(clip(rounded<T>(e.x + step), e.low, e.high, rules) - e.origin);
  return rounded<T>(rounded<T>(step + e.x) - e.origin);
}
// The whole step; `factor` is what shrinks an L2 perturbation.
template <class T, class A> DEVICE A moved(const Element<A>& e, A d, A radius, A factor, int norm, int rules) {
  if ((rules & CLIP_FIRST) && !(rules & PROJECT)) return clip(rounded<T>(e.x + rounded<T>(d * e.step)), e.low, e.high, rules);
  A delta = perturbation<T>(e, d, rules);
  if (rules & PROJECT) delta = norm == L2 ? rounded<T>(delta * factor) : clamp_high(clamp_low(delta, -radius), radius);
  return clip(rounded<T>(e.origin + delta), e.low, e.high, rules);
}
// By what an L2 perturbation is multiplied to lie in the ball.
template <class A> DEVICE A shrinkage(const Stat& s, double guard, A radius) {
  A sum = squares<A>(s);
  sum = sum < A(guard) ? A(guard) : sum;
  const A norm = A(root(double(sum)));  // the rounded double root of a float is its float root
  return norm <= radius ? A(1) : radius / norm;
}

}  // namespace torchfgsm
