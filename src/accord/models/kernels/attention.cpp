// Attention over prompt trees on a CPU: scores of a block of queries stay in a core's cache, and what nobody sees is not
// computed. A tree's keys and values are laid out in float32 once, all products and the softmax are float32.
// T is what is read and written. D and W, the widths of keys and values, are multiples of 16.

#include "attention.h"

namespace {

constexpr int HIGH = 6;               // rows of a product held at once: HIGH * WIDE sums fill the registers there are
constexpr int64_t SCORES = 1 << 15;   // most of a block of queries
constexpr int64_t PAD = 8 * WIDTH;    // columns beyond the last that are written, or read and not used

// -- products ---------------------------------------------------------------------------------------------------------

// R rows x V registers of C = A B, or C += A B, over K; the strides of A let it be read transposed.
template <int R, int V>
inline void tile(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row,
                 int64_t K, bool add) {
    vec sums[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sums[r][v] = add ? load(c + r * c_row + v * WIDTH) : vec{};
    for (int64_t k = 0; k < K; k++) {
        vec line[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) line[v] = load(b + k * b_row + v * WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            float x = a[r * a_row + k * a_col];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) sums[r][v] += x * line[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) store(c + r * c_row + v * WIDTH, sums[r][v]);
}

template <int V>
void columns(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t M,
             int64_t K, bool add) {
    int64_t m = 0;
    for (; m + HIGH <= M; m += HIGH) tile<HIGH, V>(a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, K, add);
    for (; m + 2 <= M; m += 2) tile<2, V>(a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, K, add);
    for (; m < M; m++) tile<1, V>(a + m * a_row, a_row, a_col, b, b_row, c + m * c_row, c_row, K, add);
}

// C (M, N) = A (M, K) B (K, N), or C += A B; writes N rounded up to registers.
void product(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t M,
             int64_t N, int64_t K, bool add) {
    int64_t n = 0;
    for (; n + WIDE * WIDTH <= N; n += WIDE * WIDTH) columns<WIDE>(a, a_row, a_col, b + n, b_row, c + n, c_row, M, K, add);
    for (; n < N; n += WIDTH) columns<1>(a, a_row, a_col, b + n, b_row, c + n, c_row, M, K, add);
}

// -- a tree's parts in float32 ----------------------------------------------------------------------------------------

float* room(std::vector<float>& x, int64_t size) {
    if (int64_t(x.size()) < size) x.resize(size);
    return x.data();
}

template <typename T> void copy_rows(float* to, const T* x, int64_t stride, int64_t rows, int64_t width, float times) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < width; d += WIDTH) store(to + t * width + d, load(x + t * stride + d) * times);
}

template <typename T>
void copy_columns(float* to, int64_t line, const T* x, int64_t stride, int64_t rows, int64_t width) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < width; d += WIDTH) {
            vec y = load(x + t * stride + d);
            for (int i = 0; i < WIDTH; i++) to[(d + i) * line + t] = y[i];
        }
}

template <typename T> void write_rows(T* to, int64_t stride, const float* x, int64_t rows, int64_t width) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < width; d += WIDTH) store(to + t * stride + d, load(x + t * width + d));
}

// -- blocks of queries ------------------------------------------------------------------------------------------------

// `rows` queries from `at` on of a segment, which read the prompt and `seen` of their own.
struct Block {
    const Segment& s;
    int64_t at, rows, seen, line;
    int64_t place() const { return s.own + at; }
    int64_t first() const { return s.prompt_size + at; }  // position of the first query
    int64_t keys() const { return s.prompt_size + seen; }
};

template <typename Do> void blocks(const Segment& s, Do what) {
    int64_t line = s.prompt_size + s.own_size + PAD;
    int64_t most = SCORES / line / HIGH * HIGH;
    most = most < HIGH ? HIGH : most > 16 * HIGH ? 16 * HIGH : most;
    for (int64_t at = 0; at < s.own_size; at += most) {
        int64_t rows = s.own_size - at < most ? s.own_size - at : most;
        what(Block{s, at, rows, at + rows, line});
    }
}
constexpr int64_t MOST = 16 * HIGH;  // rows of a block

// c (rows, keys) = a (rows, width) times columns (width, tokens of the tree that starts at `start`).
void against(const Block& b, const float* a, int64_t width, const float* columns, int64_t tokens, int64_t start, float* c) {
    product(a, width, 1, columns + b.s.prompt - start, tokens, c, b.line, b.rows, b.s.prompt_size, width, false);
    product(a, width, 1, columns + b.s.own - start, tokens, c + b.s.prompt_size, b.line, b.rows, b.seen, width, false);
}

// out (rows, width) = share (rows, keys) times rows (tokens, width) of the tree.
void mixed(const Block& b, const float* share, const float* rows, int64_t width, int64_t start, float* out) {
    product(share, b.line, 1, rows + (b.s.prompt - start) * width, width, out, width, b.rows, width, b.s.prompt_size, false);
    product(share + b.s.prompt_size, b.line, 1, rows + (b.s.own - start) * width, width, out, width, b.rows, width, b.seen,
            true);
}

// sums (tokens, width) += share^T times x (rows, width).
void spread(const Block& b, const float* share, const float* x, int64_t width, int64_t start, float* sums) {
    product(share, 1, b.line, x, width, sums + (b.s.prompt - start) * width, width, b.s.prompt_size, width, b.rows, true);
    product(share + b.s.prompt_size, 1, b.line, x, width, sums + (b.s.own - start) * width, width, b.seen, width, b.rows,
            true);
}

// In place, over what each query sees; 0 elsewhere. Queries were scaled already.
void softmax(const Block& b, float* score, int64_t window) {
    for (int64_t i = 0; i < b.rows; i++) {
        float* row = score + i * b.line;
        int64_t stop = b.first() + i + 1, start = window && stop > window ? stop - window : 0;
        float part = 1.0f / powers(row, start, stop, 1.0f);
        for (int64_t j = start / WIDTH * WIDTH; j < stop; j += WIDTH) store(row + j, load(row + j) * part);
        for (int64_t j = 0; j < start; j++) row[j] = 0;
        for (int64_t j = stop; j < b.keys(); j++) row[j] = 0;
    }
}

// In place of share_grad that of the scores:  ds = p (dp - sum_j p_j dp_j).
void softmax_back(const Block& b, const float* share, float* share_grad) {
    for (int64_t i = 0; i < b.rows; i++) {
        const float* p = share + i * b.line;
        float* dp = share_grad + i * b.line;
        int64_t stop = b.first() + i + 1;
        float mean = 0;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < stop; j++) mean += p[j] * dp[j];
#pragma omp simd
        for (int64_t j = 0; j < stop; j++) dp[j] = p[j] * (dp[j] - mean);
        for (int64_t j = stop; j < b.keys(); j++) dp[j] = 0;
    }
}

// -- a pack -----------------------------------------------------------------------------------------------------------

template <typename T>
void attend(const T* q, const T* k, const T* v, T* out, const Segment* segments, const Tree* trees, int64_t count, Heads is) {
    const int64_t R = is.H / is.G;
    const Items items(count, is);
#pragma omp parallel num_threads(is.threads)
    {
        std::vector<float> keys_, values_, q_, score_, out_;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items.count; item++) {
            const Tree& tree = trees[item / (is.G * items.split)];
            const int64_t part = item % (is.G * items.split), g = part / items.split, tokens = up(tree.size, WIDTH) + PAD;
            float *keys = room(keys_, tokens * is.D + PAD), *values = room(values_, tree.size * is.W);
            copy_columns(keys, tokens, k + (tree.start * is.G + g) * is.D, is.G * is.D, tree.size, is.D);
            copy_rows(values, v + (tree.start * is.G + g) * is.W, is.G * is.W, tree.size, is.W, 1.0f);
            for (int64_t h = g * R + part % items.split; h < (g + 1) * R; h += items.split)
                for (int64_t n = tree.first; n < tree.last; n++)
                    blocks(segments[n], [&](const Block& b) {
                        float *query = room(q_, MOST * is.D), *score = room(score_, MOST * b.line), *y = room(out_, MOST * is.W);
                        copy_rows(query, q + (b.place() * is.H + h) * is.D, is.H * is.D, b.rows, is.D, is.scaling);
                        against(b, query, is.D, keys, tokens, tree.start, score);
                        softmax(b, score, is.window);
                        mixed(b, score, values, is.W, tree.start, y);
                        write_rows(out + (b.place() * is.H + h) * is.W, is.H * is.W, y, b.rows, is.W);
                    });
        }
    }
}

template <typename T>
void attend_back(const T* q, const T* k, const T* v, const T* grad, T* dq, T* dk, T* dv, const Segment* segments,
                 const Tree* trees, int64_t count, Heads is) {
    const int64_t R = is.H / is.G, all = count ? trees[count - 1].start + trees[count - 1].size : 0;
    const Items items(count, is);
    // Where several items share a key head, each has sums of its own, added in the order of heads at the end.
    const int64_t heads = is.G * items.split;
    std::vector<float> dk_parts(items.split > 1 ? all * heads * is.D : 0), dv_parts(items.split > 1 ? all * heads * is.W : 0);
#pragma omp parallel num_threads(is.threads)
    {
        std::vector<float> keys_, columns_, values_, q_, grad_, score_, share_, dq_, dk_, dv_;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items.count; item++) {
            const Tree& tree = trees[item / heads];
            const int64_t part = item % heads, g = part / items.split, tokens = up(tree.size, WIDTH) + PAD;
            const T *own_k = k + (tree.start * is.G + g) * is.D, *own_v = v + (tree.start * is.G + g) * is.W;
            float *columns = room(columns_, tokens * is.D + PAD), *values = room(values_, tokens * is.W + PAD);
            float* keys = room(keys_, tree.size * is.D);
            copy_columns(columns, tokens, own_k, is.G * is.D, tree.size, is.D);
            copy_columns(values, tokens, own_v, is.G * is.W, tree.size, is.W);
            copy_rows(keys, own_k, is.G * is.D, tree.size, is.D, is.scaling);
            dk_.assign(tree.size * is.D, 0.0f);
            dv_.assign(tree.size * is.W, 0.0f);
            for (int64_t h = g * R + part % items.split; h < (g + 1) * R; h += items.split)
                for (int64_t n = tree.first; n < tree.last; n++)
                    blocks(segments[n], [&](const Block& b) {
                        float *query = room(q_, MOST * is.D), *up_grad = room(grad_, MOST * is.W), *y = room(dq_, MOST * is.D);
                        float *share = room(share_, MOST * b.line), *score_grad = room(score_, MOST * b.line);
                        copy_rows(query, q + (b.place() * is.H + h) * is.D, is.H * is.D, b.rows, is.D, is.scaling);
                        copy_rows(up_grad, grad + (b.place() * is.H + h) * is.W, is.H * is.W, b.rows, is.W, 1.0f);
                        against(b, query, is.D, columns, tokens, tree.start, share);
                        softmax(b, share, is.window);
                        against(b, up_grad, is.W, values, tokens, tree.start, score_grad);
                        softmax_back(b, share, score_grad);
                        mixed(b, score_grad, keys, is.D, tree.start, y);
                        write_rows(dq + (b.place() * is.H + h) * is.D, is.H * is.D, y, b.rows, is.D);
                        spread(b, score_grad, query, is.D, tree.start, dk_.data());
                        spread(b, share, up_grad, is.W, tree.start, dv_.data());
                    });
            if (items.split == 1) {
                write_rows(dk + (tree.start * is.G + g) * is.D, is.G * is.D, dk_.data(), tree.size, is.D);
                write_rows(dv + (tree.start * is.G + g) * is.W, is.G * is.W, dv_.data(), tree.size, is.W);
            } else {
                write_rows(dk_parts.data() + (tree.start * heads + part) * is.D, heads * is.D, dk_.data(), tree.size, is.D);
                write_rows(dv_parts.data() + (tree.start * heads + part) * is.W, heads * is.W, dv_.data(), tree.size, is.W);
            }
        }
    }
    if (items.split == 1) return;
    add_parts(dk_parts.data(), dk, all * is.G, items.split, is.D, is.threads);
    add_parts(dv_parts.data(), dv, all * is.G, items.split, is.W, is.threads);
}

}  // namespace

extern "C" {

#define OF(T, NAME)                                                                                                         \
    void attend_##NAME(const T* q, const T* k, const T* v, T* out, const Segment* segments, const Tree* trees,              \
                       int64_t count, const Heads* heads) {                                                                 \
        attend(q, k, v, out, segments, trees, count, *heads);                                                               \
    }                                                                                                                       \
    void attend_back_##NAME(const T* q, const T* k, const T* v, const T* grad, T* dq, T* dk, T* dv,                         \
                            const Segment* segments, const Tree* trees, int64_t count, const Heads* heads) {                \
        attend_back(q, k, v, grad, dq, dk, dv, segments, trees, count, *heads);                                             \
    }
OF(float, f32)
OF(bf16, bf16)
}
