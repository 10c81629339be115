/* Rows of bits, one bit per symbol: some symbols' put in place, gates over them, and the arming of edges; rules/logic.py
 * and rules/lifecycle.py.
 *
 * numpy makes an array of each operation's result: of a thousand rules 0.7 MB each. Here eight bytes, 64 symbols of a
 * row, go through all that is done to them at once, and only what changes is written.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum {
    LAYOUT = 2, /* what rules/logic.py and rules/lifecycle.py must have been written for */
    WORD = 8    /* bytes of a row that are taken together */
};

/* ── matrices ────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Hold a C-contiguous array of this item size and these lengths, -1 = any; 0 with an exception set. */
static int
hold(PyObject *given, Py_buffer *view, Py_ssize_t itemsize, Py_ssize_t rows, Py_ssize_t width, int is_written)
{
    if (PyObject_GetBuffer(given, view, PyBUF_C_CONTIGUOUS | (is_written ? PyBUF_WRITABLE : 0)) < 0)
        return 0;
    if (view->itemsize == itemsize && view->ndim == 2 && (rows < 0 || view->shape[0] == rows) &&
        (width < 0 || view->shape[1] == width))
        return 1;
    PyErr_Format(PyExc_ValueError, "an array of (%zd, %zd) elements of %zd bytes is needed", rows, width, itemsize);
    PyBuffer_Release(view);
    return 0;
}

/* Read `size` bytes, eight at most; what lies behind them is 0. */
static inline uint64_t
load(const unsigned char *bytes, size_t size)
{
    uint64_t word = 0;
    memcpy(&word, bytes, size);
    return word;
}

static inline void
store(unsigned char *bytes, uint64_t word, size_t size)
{
    memcpy(bytes, &word, size);
}

/* ── leaves ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Put the bits of some symbols, in the order of `at`, in their places of a row; all others are 0. */
static void
scatter_row(const unsigned char *from, const int64_t *at, Py_ssize_t n, unsigned char *to, Py_ssize_t width)
{
    memset(to, 0, (size_t)width);
    for (Py_ssize_t byte = 0; byte * 8 < n; byte++) {
        if (!from[byte])
            continue;
        Py_ssize_t end = byte * 8 + 8 < n ? byte * 8 + 8 : n;
        for (Py_ssize_t i = byte * 8; i < end; i++)
            if (from[byte] & (128 >> (i & 7)))
                to[at[i] >> 3] |= (unsigned char)(128 >> (at[i] & 7));
    }
}

/* Put each of a list of rows in its place, from row `first` of `both` on; 0 with an exception set. */
static int
scatter_rows(PyObject *given, const Py_buffer *at, const Py_buffer *both, Py_ssize_t first)
{
    Py_ssize_t n = at->shape[1], width = both->shape[1];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(given); i++) {
        Py_buffer row;
        if (PyObject_GetBuffer(PyList_GET_ITEM(given, i), &row, PyBUF_SIMPLE) < 0)
            return 0;
        int fits = row.len == (n + 7) / 8;
        if (fits)
            scatter_row(row.buf, at->buf, n, (unsigned char *)both->buf + (first + i) * width, width);
        else
            PyErr_Format(PyExc_ValueError, "row %zd is not %zd bytes", i, (n + 7) / 8);
        PyBuffer_Release(&row);
        if (!fits)
            return 0;
    }
    return 1;
}

static int
are_places(const Py_buffer *at, Py_ssize_t width)
{
    const int64_t *places = at->buf;
    int outside = 0;
    for (Py_ssize_t i = 0; i < at->shape[1]; i++)
        outside |= places[i] < 0 || places[i] >= width * 8;
    return !outside;
}

PyDoc_STRVAR(scatter_doc,
"scatter(true, false, at, both)\n\n"
"Put what is known of some symbols in place: lists of as many rows each, (ceil(k / 8),) uint8, whose bits belong to the\n"
"symbols of at, (1, k) int64. They become the first rows of either half of `both`, as `gates` has it; all other symbols'\n"
"bits in them become 0.");

static PyObject *
scatter(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Py_buffer at, both;
    (void)module;
    if (given != 4 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "scatter takes two lists and two arrays");
        return NULL;
    }
    if (!hold(args[2], &at, sizeof(int64_t), 1, -1, 0))
        return NULL;
    if (!hold(args[3], &both, 1, -1, -1, 1)) {
        PyBuffer_Release(&at);
        return NULL;
    }
    Py_ssize_t rows = both.shape[0] / 2;
    int done = 0;
    if (PyList_GET_SIZE(args[0]) > rows || PyList_GET_SIZE(args[1]) != PyList_GET_SIZE(args[0]) ||
        !are_places(&at, both.shape[1]))
        PyErr_SetString(PyExc_ValueError, "these rows or symbols are not in both");
    else
        done = scatter_rows(args[0], &at, &both, 0) && scatter_rows(args[1], &at, &both, rows);
    PyBuffer_Release(&both);
    PyBuffer_Release(&at);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

/* ── gates ───────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { AND, OR, NOT };
typedef struct {
    int32_t kind, a, b, out;
} Gate;

static void
run_gate(const Gate *gate, unsigned char *t, unsigned char *f, Py_ssize_t width)
{
    const unsigned char *ta = t + gate->a * width, *tb = t + gate->b * width;
    const unsigned char *fa = f + gate->a * width, *fb = f + gate->b * width;
    unsigned char *to = t + gate->out * width, *fo = f + gate->out * width;
    if (gate->kind == AND)
        for (Py_ssize_t i = 0; i < width; i++) {
            to[i] = ta[i] & tb[i];
            fo[i] = fa[i] | fb[i];
        }
    else if (gate->kind == OR)
        for (Py_ssize_t i = 0; i < width; i++) {
            to[i] = ta[i] | tb[i];
            fo[i] = fa[i] & fb[i];
        }
    else {
        memcpy(to, fa, (size_t)width);
        memcpy(fo, ta, (size_t)width);
    }
}

PyDoc_STRVAR(gates_doc,
"gates(gates, both)\n\n"
"Run gates in order: (gates, 4) int32, which are their kind (0 AND, 1 OR, 2 NOT), the rows of their inputs and of their\n"
"output. `both`: (2·rows, bytes) uint8, what is known true and below it what is known false.");

static PyObject *
gates(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Py_buffer listed, both;
    (void)module;
    if (given != 2) {
        PyErr_SetString(PyExc_TypeError, "gates takes gates and rows");
        return NULL;
    }
    if (!hold(args[0], &listed, sizeof(int32_t), -1, 4, 0))
        return NULL;
    if (!hold(args[1], &both, 1, -1, -1, 1)) {
        PyBuffer_Release(&listed);
        return NULL;
    }
    Py_ssize_t rows = both.shape[0] / 2, width = both.shape[1], at = 0;
    for (; at < listed.shape[0]; at++) {
        const Gate *gate = (const Gate *)listed.buf + at;
        if (gate->kind < AND || gate->kind > NOT || gate->a < 0 || gate->a >= rows || gate->b < 0 || gate->b >= rows ||
            gate->out < 0 || gate->out >= rows || gate->out == gate->a || gate->out == gate->b)
            break;
        run_gate(gate, both.buf, (unsigned char *)both.buf + rows * width, width);
    }
    int done = at == listed.shape[0];
    if (!done)
        PyErr_Format(PyExc_ValueError, "gate %zd is none of these rows", at);
    PyBuffer_Release(&both);
    PyBuffer_Release(&listed);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

/* ── edges ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* One slot: what is known of its condition, whether it re-arms, and its state; a row each. */
typedef struct {
    Py_ssize_t place, width;
    const unsigned char *t, *f, *rearm, *enabled;
    uint64_t on_start;
    unsigned char *armed, *started;
} Slot;

/* Add (slot, symbol's row, late) for each bit of a word of fires; 0 with an exception set. */
static int
tell(PyObject *found, const Slot *slot, Py_ssize_t at, uint64_t fires, uint64_t late)
{
    unsigned char fired[WORD], lately[WORD];
    memcpy(fired, &fires, WORD);
    memcpy(lately, &late, WORD);
    for (Py_ssize_t i = 0; i < WORD * 8; i++) {
        int mask = 128 >> (i & 7);
        if (!(fired[i >> 3] & mask))
            continue;
        PyObject *one = Py_BuildValue("nnO", slot->place, at * 8 + i, lately[i >> 3] & mask ? Py_True : Py_False);
        if (one == NULL || PyList_Append(found, one) < 0) {
            Py_XDECREF(one);
            return 0;
        }
        Py_DECREF(one);
    }
    return 1;
}

/* Take a sample of `size` bytes of one slot, eight at most; 0 with an exception set. */
static inline int
sample_word(const Slot *slot, Py_ssize_t at, size_t size, PyObject *found)
{
    uint64_t t = load(slot->t + at, size), f = load(slot->f + at, size);
    uint64_t valid = (t | f) & load(slot->enabled + at, size);
    uint64_t started = load(slot->started + at, size), armed = load(slot->armed + at, size);
    uint64_t rearmed = load(slot->rearm + at, size) & valid, first = valid & ~started, late = 0;
    if (first) {
        late = first & t & slot->on_start;
        rearmed = (rearmed & ~first) | (first & f) | late;
        store(slot->started + at, started | first, size);
    }
    uint64_t fires = (armed | rearmed) & t & valid, after = (armed | rearmed) ^ fires;
    if (after != armed)
        store(slot->armed + at, after, size);
    return !fires || tell(found, slot, at, fires, late);
}

/* Take a sample of one slot; 0 with an exception set. */
static int
sample(const Slot *slot, PyObject *found)
{
    Py_ssize_t at = 0;
    for (; slot->width - at >= WORD; at += WORD) /* of a size that is known here: a load, not a call */
        if (!sample_word(slot, at, WORD, found))
            return 0;
    return at == slot->width || sample_word(slot, at, (size_t)(slot->width - at), found);
}

/* What `edges` takes, in its order. */
enum { BOTH, ROWS, REARM_ROWS, ENABLED, ON_START, ARMED, STARTED, MATRICES };

/* Take a sample of all slots; 0 with an exception set. */
static int
sample_all(const Py_buffer *views, PyObject *found)
{
    Py_ssize_t rows = views[BOTH].shape[0] / 2;
    for (Py_ssize_t i = 0, width = views[BOTH].shape[1]; i < views[ARMED].shape[0]; i++) {
        const unsigned char *both = views[BOTH].buf;
        int64_t row = ((const int64_t *)views[ROWS].buf)[i], rearm = ((const int64_t *)views[REARM_ROWS].buf)[i];
        if (row < 0 || row >= rows || rearm < 0 || rearm >= 2 * rows) {
            PyErr_Format(PyExc_ValueError, "slot %zd is none of these rows", i);
            return 0;
        }
        Slot slot = {
            i, width, both + row * width, both + (rows + row) * width, both + rearm * width,
            (const unsigned char *)views[ENABLED].buf + i * width,
            ((const unsigned char *)views[ON_START].buf)[i] ? ~UINT64_C(0) : 0,
            (unsigned char *)views[ARMED].buf + i * width, (unsigned char *)views[STARTED].buf + i * width,
        };
        if (!sample(&slot, found))
            return 0;
    }
    return 1;
}

PyDoc_STRVAR(edges_doc,
"edges(both, rows, rearm_rows, enabled, on_start, armed, started) -> list of (slot, symbol's row, late)\n\n"
"As EdgeBits.sample of rules/lifecycle.py. `both` is as `gates` has it; rows (1, slots) int64: of each slot's condition in\n"
"the upper half; rearm_rows (1, slots) int64: of its re-arming in both; enabled, armed, started (slots, bytes) uint8;\n"
"on_start (slots, 1) uint8.");

static PyObject *
edges(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Py_buffer views[MATRICES];
    Py_ssize_t held = 0, slots = -1, width = -1;
    (void)module;
    if (given != MATRICES) {
        PyErr_Format(PyExc_TypeError, "edges takes %d arrays", MATRICES);
        return NULL;
    }
    for (; held < MATRICES; held++) {
        int is_list = held == ROWS || held == REARM_ROWS, is_state = held == ARMED || held == STARTED;
        Py_ssize_t high = held == BOTH ? -1 : is_list ? 1 : slots;
        Py_ssize_t wide = held == BOTH ? -1 : is_list ? slots : held == ON_START ? 1 : width;
        if (!hold(args[held], &views[held], is_list ? sizeof(int64_t) : 1, high, wide, is_state))
            break;
        if (held == BOTH)
            width = views[BOTH].shape[1];
        else if (held == ROWS)
            slots = views[ROWS].shape[1];
    }
    PyObject *found = held == MATRICES ? PyList_New(0) : NULL;
    if (found != NULL && !sample_all(views, found))
        Py_CLEAR(found);
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    return found;
}

static PyMethodDef methods[] = {
    {"scatter", (PyCFunction)(void (*)(void))scatter, METH_FASTCALL, scatter_doc},
    {"gates", (PyCFunction)(void (*)(void))gates, METH_FASTCALL, gates_doc},
    {"edges", (PyCFunction)(void (*)(void))edges, METH_FASTCALL, edges_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_bits",
    .m_doc = "Rows of bits: some symbols' put in place, gates, and the arming of edges.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__bits(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntMacro(module, LAYOUT) < 0)
        Py_CLEAR(module);
    return module;
}
