// A step of decoding, whole: every layer of a Llama-like model for one token a row, in one call. Between the products of
// `product.h` stand norms, rotations, attention and gates; what a thread waits for is the others, not the interpreter.
// What is computed stands in accord/rollouts/decoder.py in torch's operations. States, sums, scores and softmax are float32;
// what products, gates and attention hand on is rounded to T. H query heads of D numbers read G keys and values of as many.

#include <cstdlib>
#include <memory>

#include "product.h"

namespace {

// (outputs, features + rank); (outputs) or null; (rank, features) or null. What `down` makes of the features is read behind
// them: so an adapter's part is summed in the same product.
template <typename T> struct Weights { const T* w; const float* bias; const T* down; int64_t rank; };

// Buffers of keys and values are (rows, G, room, D).
template <typename T> struct Layer {
    Weights<T> heads, output, gate_up, down;              // queries, keys and values are one product, gate and up another
    const float *norm, *norm_mlp, *norm_query, *norm_key;  // the last two may be null
    T *keys, *values;
};

// A row's columns are first <= t <= column, of which the last is written here.
struct Step {
    int64_t layers, rows, hidden, inner, vocabulary, H, G, D, room, column;
    float eps, eps_heads, scaling;
    int unit, threads;
};

constexpr int TOGETHER = 4;  // query heads that read a key at once

// score (N, columns) = queries (N, D) times the keys from `first` to `last`.
template <int N, typename T>
void scores(const float* q, const T* keys, int64_t D, int64_t first, int64_t last, float* score, int64_t line) {
    for (int64_t t = first; t <= last; t++) {
        vec sums[N] = {};
        for (int64_t d = 0; d < D; d += WIDTH) {
            vec x = load(keys + t * D + d);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[n] += load(q + n * D + d) * x;
        }
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) score[n * line + t] = sum(sums[n]);
    }
}

// out (N, D) = share (N, columns) times the values; V registers of them at a time.
template <int N, int V, typename T>
void mixed(const float* share, int64_t line, const T* values, int64_t D, int64_t first, int64_t last, T* out, int64_t d) {
    vec sums[N][V] = {};
    for (int64_t t = first; t <= last; t++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            vec x = load(values + t * D + d + v * WIDTH);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sums[n][v] += share[n * line + t] * x;
        }
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) store(out + n * D + d + v * WIDTH, sums[n][v]);
}

// Over columns first to last, in place.
void softmax(float* row, int64_t first, int64_t last) {
    float top = row[first];
    for (int64_t t = first; t <= last; t++) top = row[t] > top ? row[t] : top;
    int64_t stop = last + 1;
    for (int64_t t = stop; t < stop + WIDTH; t++) row[t] = -INFINITY;  // the line has room for them
    vec total{};
    for (int64_t t = first; t < stop; t += WIDTH) { vec x = exponential(load(row + t) - top); total += x; store(row + t, x); }
    float part = 1.0f / sum(total);
    for (int64_t t = first; t < stop; t += WIDTH) store(row + t, load(row + t) * part);
}

template <int N, typename T>
void heads(const float* q, const T* keys, const T* values, int64_t first, const Step& is, float* score, T* out) {
    const int64_t line = is.room + 2 * WIDTH;
    scores<N>(q, keys, is.D, first, is.column, score, line);
    for (int n = 0; n < N; n++) softmax(score + n * line, first, is.column);
    int64_t d = 0;
    for (; d + 4 * WIDTH <= is.D; d += 4 * WIDTH) mixed<N, 4>(score, line, values, is.D, first, is.column, out, d);
    for (; d < is.D; d += WIDTH) mixed<N, 1>(score, line, values, is.D, first, is.column, out, d);
}

// The norm of a head (if there is one) and its rotation.
template <typename T>
void turn(const T* x, const float* w, float eps, const float* cos, const float* sin, int64_t D, T* to) {
    float r = 1.0f;
    if (w) {
        vec squares{};
        for (int64_t d = 0; d < D; d += WIDTH) squares += load(x + d) * load(x + d);
        r = 1.0f / std::sqrt(sum(squares) / D + eps);
    }
    for (int64_t d = 0, half = D / 2; d < half; d += WIDTH) {
        vec a = load(x + d), b = load(x + half + d), c = load(cos + d), s = load(sin + d);
        if (w) a *= r * load(w + d), b *= r * load(w + half + d);
        store(to + d, a * c - b * s);
        store(to + half + d, b * c + a * s);
    }
}

// out (H / G, D) of one row and one of its G keys and values; qkv: its H + 2 G heads.
template <typename T>
void attend(const Step& is, const Layer<T>& layer, int64_t row, int64_t g, const T* qkv, const float* cos, const float* sin,
            int64_t first, std::vector<float>& space, T* out) {
    const int64_t D = is.D, R = is.H / is.G, item = row * is.G + g;
    T *keys = layer.keys + item * is.room * D, *values = layer.values + item * is.room * D;
    turn(qkv + (is.H + g) * D, layer.norm_key, is.eps_heads, cos, sin, D, keys + is.column * D);
    memcpy(values + is.column * D, qkv + (is.H + is.G + g) * D, D * sizeof(T));
    space.resize(TOGETHER * (2 * D + is.room + 2 * WIDTH));
    float *query = space.data(), *score = query + 2 * TOGETHER * D;
    T* turned = (T*)(query + TOGETHER * D);
    for (int64_t h = g * R, count; h < (g + 1) * R; h += count, out += count * D) {
        count = (g + 1) * R - h < TOGETHER ? (g + 1) * R - h : TOGETHER;
        for (int64_t n = 0; n < count; n++) {
            turn(qkv + (h + n) * D, layer.norm_query, is.eps_heads, cos, sin, D, turned);
            for (int64_t d = 0; d < D; d += WIDTH) store(query + n * D + d, load(turned + d) * is.scaling);
        }
        switch (count) {
            case 1: heads<1>(query, keys, values, first, is, score, out); break;
            case 2: heads<2>(query, keys, values, first, is, score, out); break;
            case 3: heads<3>(query, keys, values, first, is, score, out); break;
            default: heads<4>(query, keys, values, first, is, score, out);
        }
    }
}

// All threads come here; `use(n, b, sums)` is called for 16 outputs from n on and block b of rows, until all had theirs.
// Where outputs are no multiple of 16, some of the last have it twice.
template <typename T, typename Use>
void products(const Step& is, const T* w, const float* bias, int64_t outputs, int64_t features, const Line* x, Use use) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS;
    alignas(64) float sums[BLOCKS * OUTPUTS * ROWS];
#pragma omp for schedule(guided, 2)
    for (int64_t begin = 0; begin < outputs; begin += OUTPUTS)
        for (int64_t b = 0; b < B; b += BLOCKS) {
            const int64_t n = begin + OUTPUTS <= outputs ? begin : outputs - OUTPUTS;
            const int64_t count = B - b < BLOCKS ? B - b : BLOCKS;
            multiply(w + n * features, features, x, B, b, count, sums, Unit(is.unit));
            for (int64_t i = 0; i < count; i++) {
                float* block = sums + i * OUTPUTS * ROWS;
                for (int o = 0; bias && o < OUTPUTS; o++)
                    for (int r = 0; r < ROWS; r++) block[o * ROWS + r] += bias[n + o];
                use(n, b + i, block);
            }
        }
}

// 16 outputs from n on as lines behind a product.
template <typename T> void to_line(const Step& is, int64_t n, int64_t b, const float* sums, Line* to) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS;
    for (int o = 0; o < OUTPUTS; o += PER<T>)
        put(to[place((n + o) / PER<T>, b, B)], sums + o * ROWS, sums + (o + 1) * ROWS, T{});
}

// What an adapter makes of the features comes behind them. Returns how wide they are then.
template <typename T> int64_t with_adapter(const Step& is, const Weights<T>& of, int64_t features, Line* x) {
    if (of.rank)
        products(is, of.down, nullptr, of.rank, features, x,
                 [&](int64_t n, int64_t b, const float* sums) { to_line<T>(is, features + n, b, sums, x); });
    return features + of.rank;
}

template <typename T, typename Use>
void product(const Step& is, const Weights<T>& of, int64_t outputs, int64_t features, Line* x, Use use) {
    products(is, of.w, of.bias, outputs, with_adapter(is, of, features, x), x, use);
}

// Into rows (rows, outputs): 16 outputs from n on.
template <typename T> void to_rows(const Step& is, int64_t outputs, T* rows, int64_t n, int64_t b, const float* sums) {
    Line turned_back[OUTPUTS];
    turned((const uint32_t*)sums, ROWS, OUTPUTS, turned_back);
    for (int64_t r = 0; r < ROWS && b * ROWS + r < is.rows; r++)
        for (int i = 0; i < OUTPUTS; i += WIDTH)
            store(rows + (b * ROWS + r) * outputs + n + i, load((const float*)turned_back[r].of + i));
}

// Lines of rows (rows, features) of T.
template <typename T> void to_lines(const Step& is, int64_t features, const T* rows, Line* x) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS, words = features / PER<T>;
#pragma omp for schedule(guided, 2)
    for (int64_t line = 0; line < words; line += DEEP)
        for (int64_t b = 0; b < B; b++)
            turned((const uint32_t*)rows + b * ROWS * words + line, words, is.rows - b * ROWS, x + place(line, b, B));
}

// What is in `sums` comes to the states (hidden, B, 16), whose squares are summed 16 features at a time into `squares`.
template <typename T> void add(const Step& is, float* states, float* squares, int64_t n, int64_t b, const float* sums) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS;
    for (int i = 0; i < ROWS; i += WIDTH) {
        vec total{};
        for (int o = 0; o < OUTPUTS; o++) {
            float* at = states + ((n + o) * B + b) * ROWS + i;
            vec x = load(at) + rounded<T>(load(sums + o * ROWS + i));
            store(at, x);
            total += x * x;
        }
        store(squares + (n / OUTPUTS * B + b) * ROWS + i, total);
    }
}

// Lines of w x / sqrt(mean(x^2) + eps).
template <typename T> void norm(const Step& is, const float* states, const float* squares, const float* w, Line* x) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS, lanes = B * ROWS, words = is.hidden / PER<T>;
    std::vector<float> scale(lanes);
    for (int64_t r = 0; r < lanes; r += WIDTH) {  // by each thread: it takes less than to wait for one
        vec total{};
        for (int64_t n = 0; n < is.hidden / OUTPUTS; n++) total += load(squares + n * lanes + r);
        for (int i = 0; i < WIDTH; i++) scale[r + i] = 1.0f / std::sqrt(total[i] / is.hidden + is.eps);
    }
#pragma omp for schedule(guided, 2)
    for (int64_t line = 0; line < words; line++)
        for (int64_t b = 0; b < B; b++) {
            float y[2][ROWS];
            for (int j = 0; j < PER<T>; j++) {
                const int64_t d = line * PER<T> + j;
                for (int i = 0; i < ROWS; i += WIDTH)
                    store(y[j] + i, load(states + d * lanes + b * ROWS + i) * load(&scale[b * ROWS + i]) * w[d]);
            }
            put(x[place(line, b, B)], y[0], y[1], T{});
        }
}

// Lines of silu(gate) * up, the first and the second half of one product.
template <typename T> void gated(const Step& is, const Weights<T>& of, Line* x, Line* to) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS, K = with_adapter(is, of, is.hidden, x);
    alignas(64) float sums[2][BLOCKS * OUTPUTS * ROWS];
#pragma omp for schedule(guided, 2)
    for (int64_t n = 0; n < is.inner; n += OUTPUTS)
        for (int64_t b = 0; b < B; b += BLOCKS) {
            const int64_t count = B - b < BLOCKS ? B - b : BLOCKS;
            for (int j = 0; j < 2; j++) multiply(of.w + (n + j * is.inner) * K, K, x, B, b, count, sums[j], Unit(is.unit));
            for (int64_t o = 0; o < count * OUTPUTS; o++) {
                float *gate = sums[0] + o * ROWS, *up = sums[1] + o * ROWS;
                const float *bias = of.bias ? of.bias + n + o % OUTPUTS : nullptr;
                for (int i = 0; i < ROWS; i += WIDTH) {
                    vec g = load(gate + i), u = load(up + i);
                    if (bias) g += bias[0], u += bias[is.inner];
                    g = rounded<T>(g);
                    store(gate + i, rounded<T>(g * sigmoid(g)) * rounded<T>(u));
                }
            }
            for (int64_t i = 0; i < count; i++) to_line<T>(is, n, b + i, sums[0] + i * OUTPUTS * ROWS, to);
        }
}

template <typename T>
void step(const Step& is, const Layer<T>* layers, Weights<T> head, const float* last_norm, const float* embedded,
          const float* cos, const float* sin, const int64_t* first, T* logits) {
    const int64_t B = (is.rows + ROWS - 1) / ROWS, lanes = B * ROWS, all = (is.H + 2 * is.G) * is.D, read = is.H * is.D;
    int64_t rank = 0;  // the largest
    for (int64_t i = 0; i < is.layers; i++)
        for (const Weights<T>* of : {&layers[i].heads, &layers[i].output, &layers[i].gate_up, &layers[i].down})
            rank = of->rank > rank ? of->rank : rank;
    auto lines = [&](int64_t features) { return std::make_unique<Line[]>((features + rank) / PER<T> * B); };
    auto x = lines(is.hidden), of_read = lines(read), of_inner = lines(is.inner);
    auto floats = [&](int64_t count) { return std::unique_ptr<float[]>(new float[count]); };
    auto states = floats(is.hidden * lanes), squares = floats(is.hidden / OUTPUTS * lanes);
    std::unique_ptr<T[]> qkv(new T[is.rows * all]), out(new T[is.rows * read]);
#pragma omp parallel num_threads(is.threads)
    {
        if (is.unit == TILES) tiles_begin();
        std::vector<float> space;
#pragma omp for schedule(guided, 2)
        for (int64_t n = 0; n < is.hidden; n += OUTPUTS)
            for (int64_t b = 0; b < B; b++) {
                float zero[OUTPUTS * ROWS] = {};
                for (int o = 0; o < OUTPUTS; o++)
                    for (int64_t r = 0; r < ROWS; r++)
                        states[((n + o) * B + b) * ROWS + r] = b * ROWS + r < is.rows ? embedded[(b * ROWS + r) * is.hidden + n + o] : 0;
                add<T>(is, states.get(), squares.get(), n, b, zero);
            }
        norm<T>(is, states.get(), squares.get(), layers[0].norm, x.get());
        for (int64_t i = 0; i < is.layers; i++) {
            const Layer<T>& layer = layers[i];
            product(is, layer.heads, all, is.hidden, x.get(),
                    [&](int64_t n, int64_t b, const float* sums) { to_rows(is, all, qkv.get(), n, b, sums); });
#pragma omp for schedule(guided, 2)
            for (int64_t item = 0; item < is.rows * is.G; item++) {
                const int64_t row = item / is.G, g = item % is.G, half = is.D / 2;
                attend(is, layer, row, g, qkv.get() + row * all, cos + row * half, sin + row * half, first[row], space,
                       out.get() + row * read + g * (is.H / is.G) * is.D);
            }
            to_lines(is, read, out.get(), of_read.get());
            auto more = [&](int64_t n, int64_t b, const float* sums) { add<T>(is, states.get(), squares.get(), n, b, sums); };
            product(is, layer.output, is.hidden, read, of_read.get(), more);
            norm<T>(is, states.get(), squares.get(), layer.norm_mlp, x.get());
            gated(is, layer.gate_up, x.get(), of_inner.get());
            product(is, layer.down, is.hidden, is.inner, of_inner.get(), more);
            norm<T>(is, states.get(), squares.get(), i + 1 < is.layers ? layers[i + 1].norm : last_norm, x.get());
        }
        product(is, head, is.vocabulary, is.hidden, x.get(),
                [&](int64_t n, int64_t b, const float* sums) { to_rows(is, is.vocabulary, logits, n, b, sums); });
        if (is.unit == TILES) tiles_end();
    }
}

}  // namespace

extern "C" {

int best_unit_of_bf16() { return best_unit(); }

#define OF(T, NAME)                                                                                                         \
    void decode_##NAME(const Step* is, const Layer<T>* layers, const T* head, const float* bias, const float* norm,         \
                       const float* embedded, const float* cos, const float* sin, const int64_t* first, T* logits) {        \
        step(*is, layers, Weights<T>{head, bias, nullptr, 0}, norm, embedded, cos, sin, first, logits);                                 \
    }
OF(float, f32)
OF(bf16, bf16)
}
