/* The steps that nodes of the graph are made of: n symbols, a number of the step's own, its columns as `kinds` has them.
 *
 * They give the bits of their twins in rules/functions/columns.py and of numpy; tests/rules/test_tape.py holds them to it.
 */

#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 512 /* symbols that go through a tape together, the most a step is given; a multiple of 8 */ };

/* Each loop is compiled for what the processor may have, and the best is taken when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#define WITH_AVX512 __attribute__((target("avx512f")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define TOLERANCE 1e-9

/* ── the loops: n symbols, a number of the step's own, its columns in the order of `kinds` ───────────────────── */

typedef const double *restrict In;
typedef const unsigned char *restrict BoolIn;
typedef double *restrict Out;
typedef unsigned char *restrict BoolOut;

/* Steps that make one number of one or two. */
#define OF_TWO(name, value)                                         \
    FOR_EACH_PROCESSOR static void                                  \
    name##_loop(Py_ssize_t n, double unused, void *const *column)   \
    {                                                               \
        In a = column[0], b = column[1];                            \
        Out out = column[2];                                        \
        (void)unused;                                               \
        for (Py_ssize_t i = 0; i < n; i++)                          \
            out[i] = (value);                                       \
    }
#define OF_ONE(name, value)                                         \
    FOR_EACH_PROCESSOR static void                                  \
    name##_loop(Py_ssize_t n, double unused, void *const *column)   \
    {                                                               \
        In a = column[0];                                           \
        Out out = column[1];                                        \
        (void)unused;                                               \
        for (Py_ssize_t i = 0; i < n; i++)                          \
            out[i] = (value);                                       \
    }

OF_TWO(add, a[i] + b[i])
OF_TWO(subtract, a[i] - b[i])
OF_TWO(multiply, a[i] * b[i])
OF_TWO(divide, b[i] == 0.0 ? (double)NAN : a[i] / b[i])
OF_TWO(higher, a[i] >= b[i] || b[i] != b[i] ? a[i] : b[i]) /* of a number and NaN the number; of two equal ones a */
OF_TWO(lower, a[i] <= b[i] || b[i] != b[i] ? a[i] : b[i])
OF_TWO(maximum, a[i] >= b[i] || a[i] != a[i] ? a[i] : b[i]) /* NaN if one is; of two equal ones a */
OF_TWO(minimum, a[i] <= b[i] || a[i] != a[i] ? a[i] : b[i])
OF_ONE(negate, -a[i])
OF_ONE(size, fabs(a[i]))

FOR_EACH_PROCESSOR static void
shift_loop(Py_ssize_t n, double share, void *const *column)
{
    In x = column[0];
    Out out = column[1];
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(x[i]) < 1.0 ? 1.0 : fabs(x[i]);
        out[i] = x[i] + share * size;
    }
}

FOR_EACH_PROCESSOR static void
add_share_loop(Py_ssize_t n, double share, void *const *column)
{
    In x = column[0], base = column[1];
    Out out = column[2];
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = x[i] * share + base[i];
}

/* Where there is a NaN, which is rare, put the value before in its place, or x where that is NaN, too. */
FOR_EACH_PROCESSOR static void
hold_loop(Py_ssize_t n, In x, In before, Out out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double held = before[i] == before[i] ? before[i] : x[i];
        out[i] = out[i] == out[i] ? out[i] : held;
    }
}

FOR_EACH_PROCESSOR static void
smooth_loop(Py_ssize_t n, double weight, void *const *column)
{
    In x = column[0], rest = column[1];
    Out out = column[3];
    Py_ssize_t unknown = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        out[i] = x[i] * weight + rest[i];
        unknown += out[i] != out[i];
    }
    if (unknown > 0)
        hold_loop(n, x, column[2], out);
}

FOR_EACH_PROCESSOR static void
divide_near_loop(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1], side = column[2];
    Out out = column[3];
    (void)unused;
    for (Py_ssize_t i = 0; i < n; i++) {
        double size = fabs(side[i]) < 1.0 ? 1.0 : fabs(side[i]);
        out[i] = fabs(b[i]) <= TOLERANCE * size ? (double)NAN : a[i] / b[i];
    }
}

FOR_EACH_PROCESSOR static void
spread_loop(Py_ssize_t n, double weight, void *const *column)
{
    In x = column[0], mean = column[1], m2 = column[2], floor = column[3];
    Out out = column[4];
    for (Py_ssize_t i = 0; i < n; i++) {
        double apart = x[i] - mean[i];
        double joined = apart * apart * weight + m2[i];
        out[i] = joined <= floor[i] ? 0.0 : joined;
    }
}

FOR_EACH_PROCESSOR static void
rooted_spread_loop(Py_ssize_t n, double weight, void *const *column)
{
    Out out = column[4];
    spread_loop(n, weight, column);
    for (Py_ssize_t i = 0; i < n; i++)
        out[i] = sqrt(out[i]);
}

/* ── truths ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Pack bools into bits, most significant first, as numpy's packbits; bits behind the last are 0. */
static void
pack(Py_ssize_t n, const unsigned char *bools, unsigned char *bits)
{
    for (; n >= 8; n -= 8, bools += 8) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        uint64_t eight;
        memcpy(&eight, bools, 8);
        *bits++ = (unsigned char)(eight * UINT64_C(0x8040201008040201) >> 56); /* byte i comes to bit 63 - i */
#else
        unsigned byte = 0;
        for (int i = 0; i < 8; i++)
            byte |= (unsigned)bools[i] << (7 - i);
        *bits++ = (unsigned char)byte;
#endif
    }
    if (n > 0) {
        unsigned byte = 0;
        for (int i = 0; i < n; i++)
            byte |= (unsigned)bools[i] << (7 - i);
        *bits = (unsigned char)byte;
    }
}

FOR_EACH_PROCESSOR static void
above(Py_ssize_t n, In a, In b, BoolOut is_above, BoolOut is_not)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        is_above[i] = a[i] > b[i];
        is_not[i] = a[i] <= b[i];
    }
}

FOR_EACH_PROCESSOR static void
above_and(Py_ssize_t n, In a, In b, BoolIn also, BoolOut is_both, BoolOut is_not)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        is_both[i] = (a[i] > b[i]) & also[i];
        is_not[i] = is_both[i] ^ 1;
    }
}

static void
compare_loop(Py_ssize_t n, double unused, void *const *column)
{
    unsigned char bools[2][BLOCK];
    (void)unused;
    above(n, column[0], column[1], bools[0], bools[1]);
    pack(n, bools[0], column[2]);
    pack(n, bools[1], column[3]);
}

/* Against one number, which need not come from memory: a hundred rules that ask for a hundred levels of one column. */
FOR_EACH_PROCESSOR static void
above_number(Py_ssize_t n, In a, double number, BoolOut is_above, BoolOut is_not)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        is_above[i] = a[i] > number;
        is_not[i] = a[i] <= number;
    }
}

FOR_EACH_PROCESSOR static void
below_number(Py_ssize_t n, In a, double number, BoolOut is_below, BoolOut is_not)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        is_below[i] = number > a[i];
        is_not[i] = number <= a[i];
    }
}

static void
over_loop(Py_ssize_t n, double number, void *const *column)
{
    unsigned char bools[2][BLOCK];
    above_number(n, column[0], number, bools[0], bools[1]);
    pack(n, bools[0], column[1]);
    pack(n, bools[1], column[2]);
}

static void
under_loop(Py_ssize_t n, double number, void *const *column)
{
    unsigned char bools[2][BLOCK];
    below_number(n, column[0], number, bools[0], bools[1]);
    pack(n, bools[0], column[1]);
    pack(n, bools[1], column[2]);
}

static void
cross_loop(Py_ssize_t n, double unused, void *const *column)
{
    unsigned char bools[2][BLOCK];
    (void)unused;
    above_and(n, column[0], column[1], column[2], bools[0], bools[1]);
    pack(n, bools[0], column[3]);
    pack(n, bools[1], column[4]);
}

#ifdef WITH_AVX512
/* The same where a comparison of eight numbers gives eight bits, the first of them lowest: a fifth of the time. */
WITH_AVX512 static inline __m512d
eight(In x)
{
    return _mm512_permutexvar_pd(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_loadu_pd(x)); /* now the last of them */
}

WITH_AVX512 static void
compare_512(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1];
    BoolOut is_above = column[2], is_not = column[3];
    Py_ssize_t whole = n & ~(Py_ssize_t)7;
    for (Py_ssize_t i = 0; i < whole; i += 8) {
        __m512d left = eight(a + i), right = eight(b + i);
        is_above[i / 8] = (unsigned char)_mm512_cmp_pd_mask(left, right, _CMP_GT_OQ);
        is_not[i / 8] = (unsigned char)_mm512_cmp_pd_mask(left, right, _CMP_LE_OQ);
    }
    if (whole < n) {
        void *rest[] = {(void *)(a + whole), (void *)(b + whole), is_above + whole / 8, is_not + whole / 8};
        compare_loop(n - whole, unused, rest);
    }
}

/* Of a column against one number: which comparison tells, and which tells that it is not so. */
#define AGAINST_NUMBER_512(name, yes, no)                                                              \
    WITH_AVX512 static void                                                                            \
    name##_512(Py_ssize_t n, double number, void *const *column)                                       \
    {                                                                                                  \
        In a = column[0];                                                                              \
        BoolOut is_so = column[1], is_not = column[2];                                                 \
        Py_ssize_t whole = n & ~(Py_ssize_t)7;                                                         \
        __m512d right = _mm512_set1_pd(number);                                                        \
        for (Py_ssize_t i = 0; i < whole; i += 8) {                                                    \
            __m512d left = eight(a + i);                                                               \
            is_so[i / 8] = (unsigned char)_mm512_cmp_pd_mask(left, right, yes);                        \
            is_not[i / 8] = (unsigned char)_mm512_cmp_pd_mask(left, right, no);                        \
        }                                                                                              \
        if (whole < n) {                                                                               \
            void *rest[] = {(void *)(a + whole), is_so + whole / 8, is_not + whole / 8};               \
            name##_loop(n - whole, number, rest);                                                      \
        }                                                                                              \
    }

AGAINST_NUMBER_512(over, _CMP_GT_OQ, _CMP_LE_OQ)
AGAINST_NUMBER_512(under, _CMP_LT_OQ, _CMP_GE_OQ)

WITH_AVX512 static void
cross_512(Py_ssize_t n, double unused, void *const *column)
{
    In a = column[0], b = column[1];
    BoolIn below = column[2];
    BoolOut crossed = column[3], not_crossed = column[4];
    Py_ssize_t whole = n & ~(Py_ssize_t)7;
    pack(whole, below, crossed);
    for (Py_ssize_t i = 0; i < whole; i += 8) {
        crossed[i / 8] &= (unsigned char)_mm512_cmp_pd_mask(eight(a + i), eight(b + i), _CMP_GT_OQ);
        not_crossed[i / 8] = (unsigned char)~crossed[i / 8];
    }
    if (whole < n) {
        void *rest[] = {(void *)(a + whole), (void *)(b + whole), (void *)(below + whole), crossed + whole / 8,
                        not_crossed + whole / 8};
        cross_loop(n - whole, unused, rest);
    }
}
#endif

/* kinds: 'd' and 'b' are numbers and bools that are read, 'r' numbers that are read where another is unknown, which is
 * rare; 'D' are numbers and 'B' bits that are written. What is written comes last. */
typedef struct {
    const char *name, *kinds;
    void (*run)(Py_ssize_t n, double number, void *const *columns);
} Step;

static Step STEPS[] = {
    {"shift", "dD", shift_loop},         {"compare", "ddBB", compare_loop},  {"cross", "ddbBB", cross_loop},
    {"over", "dBB", over_loop},          {"under", "dBB", under_loop},
    {"add", "ddD", add_loop},            {"subtract", "ddD", subtract_loop}, {"multiply", "ddD", multiply_loop},
    {"negate", "dD", negate_loop},       {"size", "dD", size_loop},          {"add_share", "ddD", add_share_loop},
    {"smooth", "ddrD", smooth_loop},     {"higher", "ddD", higher_loop},     {"lower", "ddD", lower_loop},
    {"maximum", "ddD", maximum_loop},    {"minimum", "ddD", minimum_loop},   {"divide", "ddD", divide_loop},
    {"divide_near", "dddD", divide_near_loop}, {"spread", "ddddD", spread_loop},
    {"rooted_spread", "ddddD", rooted_spread_loop},
};
enum { N_STEPS = sizeof(STEPS) / sizeof(STEPS[0]) };

/* Take the best loops for this processor, of those that no compiler makes by itself. */
static void
choose_loops(void)
{
#ifdef WITH_AVX512
    if (!__builtin_cpu_supports("avx512f"))
        return;
    for (Py_ssize_t i = 0; i < N_STEPS; i++)
        if (STEPS[i].run == compare_loop)
            STEPS[i].run = compare_512;
        else if (STEPS[i].run == cross_loop)
            STEPS[i].run = cross_512;
        else if (STEPS[i].run == over_loop)
            STEPS[i].run = over_512;
        else if (STEPS[i].run == under_loop)
            STEPS[i].run = under_512;
#endif
}
