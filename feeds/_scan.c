/* Looks over all of a batch: its times, its units, a frame's words; feeds/scan.py.
 *
 * numpy's passes are as quick, but the way into each of them costs 8 µs when it has left the processor's caches, as it
 * has by the time the next snapshot of a market comes.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { LAYOUT = 2 /* what feeds/scan.py must have been written for */ };

FOR_EACH_PROCESSOR static void
least_and_most(Py_ssize_t n, const int64_t *x, int64_t *least, int64_t *most)
{
    int64_t low = x[0], high = x[0];
    for (Py_ssize_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *least = low;
    *most = high;
}

/* A word from anywhere: a part of a frame may begin at any byte. */
static inline uint64_t
word_at(const char *x)
{
    uint64_t word;
    memcpy(&word, x, sizeof word);
    return word;
}

/* In four places at once: while one waits for memory, the others go on. */
FOR_EACH_PROCESSOR static uint64_t
sum_of(Py_ssize_t words, const char *x)
{
    Py_ssize_t quarter = words / 4;
    const char *second = x + 8 * quarter, *third = second + 8 * quarter, *fourth = third + 8 * quarter;
    uint64_t sum = 0;
    for (Py_ssize_t i = 0; i < 8 * quarter; i += 8)
        sum += word_at(x + i) + word_at(second + i) + word_at(third + i) + word_at(fourth + i);
    for (Py_ssize_t i = 4 * quarter; i < words; i++)
        sum += word_at(x + 8 * i);
    return sum;
}

PyDoc_STRVAR(span_doc,
"span(times) -> (least, most) | None\n\n"
"Of (n,) int64, n > 0; None for an array of another kind or layout, which is numpy's to do.");

static PyObject *
span(PyObject *module, PyObject *times)
{
    Py_buffer view;
    int64_t least = 0, most = 0;
    (void)module;
    if (PyObject_GetBuffer(times, &view, PyBUF_STRIDES | PyBUF_FORMAT) < 0)
        return NULL;
    int ours = view.ndim == 1 && view.itemsize == 8 && (strcmp(view.format, "l") == 0 || strcmp(view.format, "q") == 0) &&
               view.shape[0] > 0 && (view.strides[0] == 8 || view.strides[0] == 0);
    if (ours) /* one number stands for all where nothing lies between one and the next */
        least_and_most(view.strides[0] ? view.shape[0] : 1, view.buf, &least, &most);
    PyBuffer_Release(&view);
    if (!ours)
        Py_RETURN_NONE;
    return Py_BuildValue("LL", (long long)least, (long long)most);
}

PyDoc_STRVAR(word_sum_doc,
"word_sum(bytes) -> int\n\n"
"Of the 8-byte little-endian words of a C-contiguous buffer, modulo 2**64; bytes behind the last whole one are left out.");

static PyObject *
word_sum(PyObject *module, PyObject *bytes)
{
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uint64_t sum = sum_of(view.len / 8, view.buf);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(sum);
}

/* As `misfits` of feeds/scan.py, each product in its order: none is added to, so nothing can be fused. */
FOR_EACH_PROCESSOR static int
any_misfit(Py_ssize_t n, const double *volume, const double *unit, const double *amount, const double *low,
           const double *high, double factor)
{
    int found = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        double shares = volume[i] * unit[i];
        found |= ((amount[i] > factor * shares * high[i]) | (amount[i] * factor < shares * low[i])) & (shares > 0) &
                 (amount[i] > 0) & (high[i] > 0);
    }
    return found;
}

PyDoc_STRVAR(all_fit_doc,
"all_fit(volume, unit, amount, low, high, factor) -> bool | None\n\n"
"Of five (n,) float64; None for arrays of another kind or layout, which is numpy's to do.");

static PyObject *
all_fit(PyObject *module, PyObject *args)
{
    enum { COLUMNS = 5 };
    PyObject *given[COLUMNS];
    Py_buffer views[COLUMNS];
    double factor;
    int got = 0, ours = 1, fit = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOOOd", &given[0], &given[1], &given[2], &given[3], &given[4], &factor))
        return NULL;
    for (; got < COLUMNS && PyObject_GetBuffer(given[got], &views[got], PyBUF_STRIDES | PyBUF_FORMAT) == 0; got++) {
        const Py_buffer *view = &views[got];
        ours &= view->ndim == 1 && strcmp(view->format, "d") == 0 && view->strides[0] == 8 && view->len == views[0].len;
    }
    if (got == COLUMNS && ours)
        fit = !any_misfit(views[0].len / 8, views[0].buf, views[1].buf, views[2].buf, views[3].buf, views[4].buf, factor);
    while (got > 0)
        PyBuffer_Release(&views[--got]);
    if (PyErr_Occurred())
        return NULL;
    if (!ours)
        Py_RETURN_NONE;
    return PyBool_FromLong(fit);
}

static PyMethodDef methods[] = {
    {"span", span, METH_O, span_doc},
    {"all_fit", all_fit, METH_VARARGS, all_fit_doc},
    {"word_sum", word_sum, METH_O, word_sum_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_scan",
    .m_doc = "Looks over all of a batch.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__scan(void)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    PyErr_SetString(PyExc_ImportError, "frames are little-endian, this machine is not");
    return NULL;
#endif
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntMacro(module, LAYOUT) < 0)
        Py_CLEAR(module);
    return module;
}
