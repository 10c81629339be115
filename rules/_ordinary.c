/* Ticks as nearly all are: what must be looked at and written for each of their symbols; rules/ordinary.py says the rest.
 *
 * Taken step by step, as what is out of the ordinary must be, a market's batch moves 28 columns of 44 kB in some sixty
 * calls of numpy: 0.5 ms for 5,500 symbols when they come from memory, and three times that where a few of them do not
 * trade, for then every call picks its rows. Here two columns are written where all tick, and each once where some do.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#if defined(__GNUC__) || defined(__clang__)
#define INTO_CALLER static inline __attribute__((always_inline))
#else
#define INTO_CALLER static inline
#endif

enum {
    MOST_COLUMNS = 512, /* of one call */
    MOST_PERIODS = 8,
    MOST_WRITES = 128, /* of each kind */
    CODES = 64,        /* status codes from here on are none of a halt */
    LAYOUT = 3         /* what rules/ordinary.py must have been written for */
};

typedef struct {
    int64_t end_ms;
    int64_t *ends_ms;
    unsigned char *closed, *flat;
    double *high, *low;
} Bars;

typedef struct { /* target[row] = source[place], less start[row] where there is one */
    char kind;
    const void *source, *start;
    void *target;
} Write;

typedef struct {
    int64_t *target, value;
} Mark;

typedef struct {
    Py_ssize_t n, k, of_batch; /* symbols; ticks taken; ticks that the batch has */
    const int64_t *rows, *places; /* each tick's symbol, and its place in the batch; NULL: all in order */
    int64_t since_ms;
    uint64_t halts; /* bit c is set: status code c is a halt */
    const double *last, *high, *low;
    const int16_t *status, *status_before;
    const int64_t *first_ms, *sampled_ms;
    const double *day_high, *day_low;
    const unsigned char *broken;
    Bars bars[MOST_PERIODS];
    Write writes[MOST_WRITES];
    Mark marks[MOST_WRITES];
    Py_ssize_t n_bars, n_writes, n_marks;
    int is_of_another_layout;
} Market;

/* ── what is ordinary ────────────────────────────────────────────────────────────────────────────────────────── */

INTO_CALLER int64_t
is_halt(int16_t status, uint64_t halts)
{
    return (int64_t)(halts >> (status & (CODES - 1)) & (uint64_t)(status >= 0 && status < CODES));
}

/* Tell whether all have a price, trade and have traded, have ticked today, have extremes of the day, and were sampled since
 * a time without anything breaking off. One loop: the more columns come at once, the less time is spent waiting for each. */
INTO_CALLER int
ticks_are_usual(const Market *m, const int64_t *rows, const int64_t *places)
{
    int64_t odd = 0;
    for (Py_ssize_t i = 0; i < m->k; i++) {
        Py_ssize_t row = rows ? rows[i] : i, place = places ? places[i] : i;
        odd |= m->last[place] != m->last[place];
        odd |= is_halt(m->status[place], m->halts) | is_halt(m->status_before[row], m->halts);
        odd |= m->day_high[row] != m->day_high[row];
        odd |= m->day_low[row] != m->day_low[row];
        odd |= m->first_ms[row] < 1;
    }
    if (m->sampled_ms != NULL)
        for (Py_ssize_t i = 0; i < m->k; i++) {
            Py_ssize_t row = rows ? rows[i] : i;
            odd |= m->sampled_ms[row] < m->since_ms;
            odd |= m->broken[row];
        }
    return !odd;
}

/* Tell whether each tick joins the open bar that its symbol holds. */
INTO_CALLER int
bars_are_usual(const Market *m, const Bars *bars, const int64_t *rows)
{
    int64_t odd = 0;
    for (Py_ssize_t i = 0; i < m->k; i++) {
        Py_ssize_t row = rows ? rows[i] : i;
        odd |= bars->ends_ms[row] ^ bars->end_ms;
        odd |= bars->closed[row] | bars->flat[row];
    }
    return !odd;
}

FOR_EACH_PROCESSOR static int
is_ordinary(const Market *m)
{
    int yes = m->rows ? ticks_are_usual(m, m->rows, m->places) : ticks_are_usual(m, NULL, NULL);
    for (Py_ssize_t i = 0; yes && i < m->n_bars; i++)
        yes = m->rows ? bars_are_usual(m, &m->bars[i], m->rows) : bars_are_usual(m, &m->bars[i], NULL);
    return yes;
}

/* ── what is done ────────────────────────────────────────────────────────────────────────────────────────────── */

/* Widen bars to the latest prices, and to the day's extremes where they have moved since the tick before. A bar has had a
 * price, and so has each tick: none of them is NaN. */
INTO_CALLER void
widen(const Market *m, const Bars *bars, const int64_t *rows, const int64_t *places)
{
    double *restrict bar_high = bars->high, *restrict bar_low = bars->low;
    for (Py_ssize_t i = 0; i < m->k; i++) {
        Py_ssize_t row = rows ? rows[i] : i, place = places ? places[i] : i;
        double last = m->last[place], high = m->high[place], low = m->low[place];
        double up = bar_high[row] >= last ? bar_high[row] : last;
        double down = bar_low[row] <= last ? bar_low[row] : last;
        bar_high[row] = high > m->day_high[row] && high > up ? high : up;
        bar_low[row] = low < m->day_low[row] && low < down ? low : down;
    }
}

FOR_EACH_PROCESSOR static void
widen_all(const Market *m)
{
    for (Py_ssize_t i = 0; i < m->n_bars; i++) {
        if (m->rows)
            widen(m, &m->bars[i], m->rows, m->places);
        else
            widen(m, &m->bars[i], NULL, NULL);
    }
}

/* Write down one column what the ticks show. */
static void
write_one(const Market *m, const Write *w)
{
    const int64_t *rows = m->rows, *places = m->places;
    if (w->start != NULL)
        for (Py_ssize_t i = 0; i < m->k; i++)
            ((double *)w->target)[rows[i]] = ((const double *)w->source)[places[i]] - ((const double *)w->start)[rows[i]];
    else if (w->kind == 'h')
        for (Py_ssize_t i = 0; i < m->k; i++)
            ((int16_t *)w->target)[rows[i]] = ((const int16_t *)w->source)[places[i]];
    else /* an int64 or a double: eight bytes either way */
        for (Py_ssize_t i = 0; i < m->k; i++)
            memcpy((char *)w->target + 8 * rows[i], (const char *)w->source + 8 * places[i], 8);
}

static void
take_all(const Market *m)
{
    widen_all(m); /* before the day's extremes are those of these ticks */
    for (Py_ssize_t i = 0; i < m->n_writes; i++)
        write_one(m, &m->writes[i]);
    for (Py_ssize_t mark = 0; mark < m->n_marks; mark++)
        for (Py_ssize_t i = 0; i < m->k; i++)
            m->marks[mark].target[m->rows ? m->rows[i] : i] = m->marks[mark].value;
}

/* ── columns of Python's ─────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    Py_ssize_t count;
    Py_buffer views[MOST_COLUMNS];
} Held;

/* Tell whether a column holds elements of a kind, in this machine's order of bytes: q int64, d double, h int16, B bytes. */
static int
is_of(const Py_buffer *view, char kind)
{
    char format = view->format[1] ? 0 : view->format[0];
    if (kind == 'q')
        return view->itemsize == 8 && (format == 'q' || format == 'l');
    if (kind == 'B')
        return format == 'B' || format == 'b' || format == '?';
    return format == kind;
}

/* Hold a column of n elements of a kind (0: of q, d or h, which is written there), and give where it lies; NULL with an
 * exception set if it is not that. */
static void *
column(Held *held, PyObject *given, char *kind, int is_written, Py_ssize_t n)
{
    if (held->count == MOST_COLUMNS) {
        PyErr_Format(PyExc_ValueError, "more than %d columns", MOST_COLUMNS);
        return NULL;
    }
    Py_buffer *view = &held->views[held->count];
    if (PyObject_GetBuffer(given, view, PyBUF_ND | PyBUF_FORMAT | (is_written ? PyBUF_WRITABLE : 0)) < 0)
        return NULL;
    held->count++;
    for (const char *any = "qdh"; *kind == 0 && *any; any++)
        *kind = is_of(view, *any) ? *any : 0;
    if (view->ndim != 1 || view->shape[0] != n || *kind == 0 || !is_of(view, *kind)) {
        PyErr_Format(PyExc_ValueError, "column %zd is not %zd elements of kind %c", held->count - 1, n, *kind ? *kind : '?');
        return NULL;
    }
    return view->buf;
}

static void
release(Held *held)
{
    while (held->count > 0)
        PyBuffer_Release(&held->views[--held->count]);
}

/* One entry of a list of tuples; NULL with an exception set if it is none. */
static PyObject *
entry(PyObject *list, Py_ssize_t at, Py_ssize_t size)
{
    PyObject *tuple = PyList_GET_ITEM(list, at);
    if (PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) == size)
        return tuple;
    PyErr_Format(PyExc_TypeError, "tuples of %zd are needed", size);
    return NULL;
}

/* Each hold_… takes some columns of one argument into the market; 0 with an exception set if it is not what it should be. */

/* kinds: of each column of a tuple; found: where each lies. */
static int
hold_some(Held *held, PyObject *given, const char *kinds, int is_written, Py_ssize_t n, void *found[])
{
    Py_ssize_t count = (Py_ssize_t)strlen(kinds);
    if (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != count) {
        PyErr_Format(PyExc_TypeError, "a tuple of %zd columns is needed", count);
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char kind = kinds[i];
        if ((found[i] = column(held, PyTuple_GET_ITEM(given, i), &kind, is_written, n)) == NULL)
            return 0;
    }
    return 1;
}

static int
hold_rows(Held *held, PyObject *rows, PyObject *places, Market *m)
{
    char kind = 'q';
    if (rows == Py_None) {
        m->k = m->n;
        return 1;
    }
    Py_ssize_t k = PyObject_Length(rows);
    if (k < 0 || (m->rows = column(held, rows, &kind, 0, k)) == NULL || (m->places = column(held, places, &kind, 0, k)) == NULL)
        return 0;
    m->k = k;
    for (Py_ssize_t i = 0; i < k; i++)
        if (m->rows[i] < 0 || m->rows[i] >= m->n || m->places[i] < 0 || m->places[i] >= m->of_batch) {
            PyErr_Format(PyExc_IndexError, "tick %zd has no such row or place", i);
            return 0;
        }
    return 1;
}

static int
hold_bars(Held *held, PyObject *given, Market *m)
{
    for (; m->n_bars < PyList_GET_SIZE(given); m->n_bars++) {
        Bars *bars = &m->bars[m->n_bars];
        PyObject *tuple = entry(given, m->n_bars, 2);
        void *found[5];
        if (tuple == NULL || !hold_some(held, PyTuple_GET_ITEM(tuple, 0), "qBBdd", 1, m->n, found))
            return 0;
        bars->ends_ms = found[0];
        bars->closed = found[1];
        bars->flat = found[2];
        bars->high = found[3];
        bars->low = found[4];
        bars->end_ms = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, 1));
        if (bars->end_ms == -1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* A batch whose columns are not as those they are written to is of another layout. */
static int
hold_writes(Held *held, PyObject *given, Market *m)
{
    if (m->rows == NULL && PyList_GET_SIZE(given) > 0) {
        PyErr_SetString(PyExc_ValueError, "what is written needs rows");
        return 0;
    }
    for (; m->n_writes < PyList_GET_SIZE(given); m->n_writes++) {
        Write *write = &m->writes[m->n_writes];
        PyObject *tuple = entry(given, m->n_writes, 3);
        if (tuple == NULL || (write->target = column(held, PyTuple_GET_ITEM(tuple, 2), &write->kind, 1, m->n)) == NULL)
            return 0;
        PyObject *start = PyTuple_GET_ITEM(tuple, 1);
        char kind = 'd';
        if (start != Py_None && (write->start = column(held, start, &kind, 0, m->n)) == NULL)
            return 0;
        if (start != Py_None && write->kind != 'd') {
            PyErr_SetString(PyExc_TypeError, "only doubles are counted from a start");
            return 0;
        }
        write->source = column(held, PyTuple_GET_ITEM(tuple, 0), &write->kind, 0, m->of_batch);
        if (write->source == NULL) {
            m->is_of_another_layout = 1;
            return 0;
        }
    }
    return 1;
}

static int
hold_marks(Held *held, PyObject *given, Market *m)
{
    for (; m->n_marks < PyList_GET_SIZE(given); m->n_marks++) {
        Mark *mark = &m->marks[m->n_marks];
        PyObject *tuple = entry(given, m->n_marks, 2);
        char kind = 'q';
        if (tuple == NULL || (mark->target = column(held, PyTuple_GET_ITEM(tuple, 0), &kind, 1, m->n)) == NULL)
            return 0;
        mark->value = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, 1));
        if (mark->value == -1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* Hold what is looked at of the market; `trail` may be empty: then nobody follows it. */
static int
hold_market(Held *held, PyObject *known, PyObject *trail, Market *m)
{
    void *found[4];
    if (!hold_some(held, known, "hqdd", 0, m->n, found))
        return 0;
    m->status_before = found[0];
    m->first_ms = found[1];
    m->day_high = found[2];
    m->day_low = found[3];
    if (PyTuple_Check(trail) && PyTuple_GET_SIZE(trail) == 0)
        return 1;
    if (!hold_some(held, trail, "qB", 0, m->n, found))
        return 0;
    m->sampled_ms = found[0];
    m->broken = found[1];
    return 1;
}

/* Hold what is looked at of the batch; 0 without an exception if it is of another layout. */
static int
hold_shown(Held *held, PyObject *shown, Market *m)
{
    void *found[4];
    if (!hold_some(held, shown, "dddh", 0, m->of_batch, found)) {
        PyErr_Clear();
        return 0;
    }
    m->last = found[0];
    m->high = found[1];
    m->low = found[2];
    m->status = found[3];
    return 1;
}

static int
are_lists(PyObject *bars, PyObject *writes, PyObject *marks)
{
    if (PyList_Check(bars) && PyList_GET_SIZE(bars) <= MOST_PERIODS && PyList_Check(writes) &&
        PyList_GET_SIZE(writes) <= MOST_WRITES && PyList_Check(marks) && PyList_GET_SIZE(marks) <= MOST_WRITES)
        return 1;
    PyErr_Format(PyExc_TypeError, "lists of at most %d periods and %d writes are needed", MOST_PERIODS, MOST_WRITES);
    return 0;
}

/* ── what is news ────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    const double *of_batch, *before;
    int begins; /* with the opening auction's result: before, it is unknown */
} Pair;

typedef struct {
    Py_ssize_t k, n_pairs;
    const int64_t *rows, *ts_ms, *ts_before;
    const int16_t *status, *status_before;
    Pair pairs[MOST_WRITES];
    int64_t midnight_ms, result_ms;
    Py_ssize_t stale, old, repeats;
} Coming;

/* Tell whether a tick shows the very numbers that its symbol shows already; unknown is like unknown. */
static int
shows_the_same(const Coming *c, Py_ssize_t i, Py_ssize_t row)
{
    for (Py_ssize_t pair = 0; pair < c->n_pairs; pair++) {
        const Pair *p = &c->pairs[pair];
        double now = p->begins && c->ts_ms[i] < c->result_ms ? NAN : p->of_batch[i], before = p->before[row];
        if (now != before && !(now != now && before != before))
            return 0;
    }
    return 1;
}

/* Write which ticks are news, and count why the others are none. */
static void
sort_out(Coming *c, unsigned char *news)
{
    for (Py_ssize_t i = 0; i < c->k; i++) {
        Py_ssize_t row = c->rows ? c->rows[i] : i;
        int is_stale = c->ts_ms[i] < c->midnight_ms, is_old = !is_stale && c->ts_ms[i] < c->ts_before[row];
        int is_repeat = !is_stale && c->ts_ms[i] == c->ts_before[row] && c->status[i] == c->status_before[row] &&
                        shows_the_same(c, i, row);
        c->stale += is_stale;
        c->old += is_old;
        c->repeats += is_repeat;
        news[i] = !(is_stale || is_old || is_repeat);
    }
}

static int
hold_pairs(Held *held, PyObject *given, Coming *c, Py_ssize_t n)
{
    if (!PyList_Check(given) || PyList_GET_SIZE(given) > MOST_WRITES) {
        PyErr_Format(PyExc_TypeError, "a list of at most %d pairs is needed", MOST_WRITES);
        return 0;
    }
    for (; c->n_pairs < PyList_GET_SIZE(given); c->n_pairs++) {
        Pair *pair = &c->pairs[c->n_pairs];
        PyObject *tuple = entry(given, c->n_pairs, 3);
        char kind = 'd';
        if (tuple == NULL || (pair->of_batch = column(held, PyTuple_GET_ITEM(tuple, 0), &kind, 0, c->k)) == NULL ||
            (pair->before = column(held, PyTuple_GET_ITEM(tuple, 1), &kind, 0, n)) == NULL)
            return 0;
        pair->begins = PyTuple_GET_ITEM(tuple, 2) == Py_True;
    }
    return 1;
}

static int
are_rows(const int64_t *rows, Py_ssize_t k, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < k; i++)
        if (rows[i] < 0 || rows[i] >= n) {
            PyErr_Format(PyExc_IndexError, "tick %zd has no such row", i);
            return 0;
        }
    return 1;
}

/* ── what Python calls ───────────────────────────────────────────────────────────────────────────────────────── */

PyDoc_STRVAR(take_doc,
"take(n, rows, places, shown, known, trail, since_ms, halts, bars, writes, marks) -> bool\n\n"
"Widen the bars of symbols to their ticks, then write and mark. False, with nothing written, if something is out of the\n"
"ordinary or the batch is of another layout. rows, places: of the k ticks taken, each symbol once; None: the batch has one\n"
"of each of the n symbols, in order, and there is nothing to write. shown: (last, high, low, status) of the batch; known:\n"
"(status, first_ms, day's high, day's low) of the symbols; trail: (sampled_ms, broken), or () = nobody follows it;\n"
"halts: bit c is set where status code c is a halt; bars: [((end_ms, closed, flat, high, low), end), ...]; writes:\n"
"[(column of the batch, what it is counted from or None, column of the symbols), ...]; marks: [(column, value), ...].");

static PyObject *
take(PyObject *module, PyObject *args)
{
    Held held;
    PyObject *rows, *places, *shown, *known, *trail, *bars, *writes, *marks;
    long long since_ms;
    unsigned long long halts;
    Market m;
    (void)module;
    memset(&m, 0, sizeof(m));
    held.count = 0;
    if (!PyArg_ParseTuple(args, "nOOOOOLKOOO", &m.n, &rows, &places, &shown, &known, &trail, &since_ms, &halts, &bars,
                          &writes, &marks))
        return NULL;
    m.since_ms = since_ms;
    m.halts = halts;
    if (!PyTuple_Check(shown) || PyTuple_GET_SIZE(shown) < 1 || (m.of_batch = PyObject_Length(PyTuple_GET_ITEM(shown, 0))) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a tuple of columns is needed");
        return NULL;
    }
    PyObject *result = NULL;
    m.is_of_another_layout = (rows == Py_None && m.of_batch != m.n) || !hold_shown(&held, shown, &m);
    if (!m.is_of_another_layout && are_lists(bars, writes, marks) && hold_rows(&held, rows, places, &m) &&
        hold_market(&held, known, trail, &m) && hold_bars(&held, bars, &m) && hold_writes(&held, writes, &m) &&
        hold_marks(&held, marks, &m)) {
        int yes = is_ordinary(&m);
        if (yes)
            take_all(&m);
        result = PyBool_FromLong(yes);
    }
    else if (m.is_of_another_layout) { /* nothing ordinary */
        PyErr_Clear();
        result = PyBool_FromLong(0);
    }
    release(&held);
    return result;
}

PyDoc_STRVAR(news_doc,
"news(n, rows, shown, known, pairs, midnight_ms, result_ms, news) -> (stale, old, repeats) or None\n\n"
"Write to `news` (k bytes) which of k ticks are news, and count the others: of a day before, older than what their symbol\n"
"shows, and its very payload. None if the batch is of another layout. rows: each tick's symbol, of n; None: of all in\n"
"order. shown, known: (ts_ms, status) of the batch and of the symbols; pairs: [(column of the batch, of the symbols,\n"
"whether it is unknown before result_ms), ...].");

static PyObject *
news(PyObject *module, PyObject *args)
{
    Held held;
    PyObject *rows, *shown, *known, *pairs, *out;
    Py_ssize_t n;
    long long midnight_ms, result_ms;
    Coming c;
    (void)module;
    memset(&c, 0, sizeof(c));
    held.count = 0;
    if (!PyArg_ParseTuple(args, "nOOOOLLO", &n, &rows, &shown, &known, &pairs, &midnight_ms, &result_ms, &out))
        return NULL;
    c.midnight_ms = midnight_ms;
    c.result_ms = result_ms;
    void *before[2], *coming[2];
    PyObject *result = NULL;
    unsigned char *where = NULL;
    char bytes = 'B', indices = 'q';
    c.k = rows == Py_None ? n : PyObject_Length(rows);
    if (c.k >= 0 && (where = column(&held, out, &bytes, 1, c.k)) != NULL && hold_some(&held, known, "qh", 0, n, before) &&
        (rows == Py_None || ((c.rows = column(&held, rows, &indices, 0, c.k)) != NULL && are_rows(c.rows, c.k, n)))) {
        c.ts_before = before[0];
        c.status_before = before[1];
        if (hold_some(&held, shown, "qh", 0, c.k, coming) && hold_pairs(&held, pairs, &c, n)) {
            c.ts_ms = coming[0];
            c.status = coming[1];
            sort_out(&c, where);
            result = Py_BuildValue("nnn", c.stale, c.old, c.repeats);
        }
        else {
            PyErr_Clear(); /* a batch of another layout */
            result = Py_NewRef(Py_None);
        }
    }
    release(&held);
    return result;
}

static PyMethodDef methods[] = {
    {"news", news, METH_VARARGS, news_doc},
    {"take", take, METH_VARARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_ordinary",
    .m_doc = "Ticks as nearly all are, in one pass over the columns of the market.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__ordinary(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntMacro(module, LAYOUT) < 0)
        Py_CLEAR(module);
    return module;
}
