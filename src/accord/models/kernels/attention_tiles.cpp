// The attention of attention.cpp in bfloat16 by matrix units: scores, softmax and all sums are float32, the weights and
// the gradients of scores are rounded to bfloat16 where they go into a product, as PyTorch rounds them.
//
// Column c of a row of scores is the key at position c, for a tree's prompt and for each of its responses: a response's
// own keys are laid out from the last multiple of 32 within the prompt on, so that tiles are never cut, and its sums are
// those of the same tokens in a row.

#include <algorithm>
#include <memory>

#include "attention.h"
#include "product.h"

#if defined(HAS_TILES)
namespace {

constexpr int64_t SIDE = 32;             // of a block: two by two tiles; numbers of a row of a tile
constexpr int64_t MOST = 96, SCORES = 1 << 15;  // rows and numbers of a block of queries

// -- tiles: 0..3 hold the sums of a block of 32 x 32, or 0 and 1 those of 16 x 32 --------------------------------------

template <bool TWO> inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (TWO) { _tile_zero(2); _tile_zero(3); }
}

template <bool TWO> inline void take(const float* c, int64_t width) {
    asm volatile("" ::: "memory");  // GCC does not know that tiles are read from memory
    _tile_loadd(0, c, width * sizeof(float));
    _tile_loadd(1, c + 16, width * sizeof(float));
    if constexpr (TWO) {
        _tile_loadd(2, c + 16 * width, width * sizeof(float));
        _tile_loadd(3, c + 16 * width + 16, width * sizeof(float));
    }
}

template <bool TWO> inline void give(float* c, int64_t width) {
    _tile_stored(0, c, width * sizeof(float));
    _tile_stored(1, c + 16, width * sizeof(float));
    if constexpr (TWO) {
        _tile_stored(2, c + 16 * width, width * sizeof(float));
        _tile_stored(3, c + 16 * width + 16, width * sizeof(float));
    }
    asm volatile("" ::: "memory");
}

// The left operand: rows of numbers as they lie, or lines laid out; the right one: lines, and a second column of tiles.
struct Left { const char* at; int64_t stride, next, below; };
struct Right { const Line* at; int64_t beside; };
inline Left rows_of(const bf16* x, int64_t width) { return {(const char*)x, width * 2, SIDE * 2, ROWS * width * 2}; }
inline Left lines_of(const Line* x, int64_t steps) { return {(const char*)x, 64, DEEP * 64, steps * DEEP * 64}; }

template <bool TWO> inline void add(Left a, Right b, int64_t steps) {
    asm volatile("" ::: "memory");
    for (int64_t i = 0; i < steps; i++, a.at += a.next, b.at += DEEP) {
        _tile_loadd(4, a.at, a.stride);
        _tile_loadd(6, b.at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b.at + b.beside, 64);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (TWO) {
            _tile_loadd(5, a.at + a.below, a.stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

// -- a tree's keys and values laid out --------------------------------------------------------------------------------

// Keys of a tree in columns of 32, prompt first, then each response from `from` on: where position c of a segment lies.
struct Place {
    int64_t from, at;
    int64_t operator()(int64_t c) const { return c < from ? c : at + c - from; }
};

struct Layout {
    std::vector<Place> of;  // each segment of the tree
    int64_t all = 0;
    void make(const Tree& tree, const Segment* segments) {
        of.clear(), all = 0;
        for (int64_t n = tree.first; n < tree.last; n++) {
            const Segment& s = segments[n];
            const int64_t from = s.prompt_size / SIDE * SIDE;
            of.push_back({from, all});
            all += up(s.prompt_size + s.own_size, SIDE) - from;
        }
    }
};

template <typename T> struct Room {
    std::unique_ptr<T[]> of;
    int64_t size = 0;
    T* operator()(int64_t n) {
        if (n > size) of.reset(new T[n]), size = n;
        return of.get();
    }
};

// to (all, width): one head of a tree's tokens (`stride` apart) in the order of its layout, zeros between.
void in_order(const Layout& layout, const Tree& tree, const Segment* segments, const bf16* x, int64_t stride, int64_t width, bf16* to) {
    for (int64_t n = tree.first; n < tree.last; n++) {
        const Segment& s = segments[n];
        const Place& place = layout.of[n - tree.first];
        const int64_t stop = s.prompt_size + s.own_size;
        for (int64_t c = place.from; c < up(stop, SIDE); c++) {
            bf16* row = to + place(c) * width;
            if (c >= stop) memset(row, 0, width * sizeof(bf16));
            else memcpy(row, x + (c < s.prompt_size ? s.prompt + c : s.own + c - s.prompt_size) * stride, width * sizeof(bf16));
        }
    }
}

// A tile of lines holds 32 x 16 numbers, two to a word of its 16 lines: so many numbers before it are 1 / 32 of that in lines.

// Lines for products that sum over the width: of 16 rows, pairs of columns.
void across(const bf16* x, int64_t rows, int64_t width, Line* to) {
    for (int64_t r = 0; r < rows; r += ROWS)
        for (int64_t i = 0; i < width; i += SIDE) turned((const uint32_t*)(x + r * width + i), width / 2, ROWS, to + (r * width + i * ROWS) / 32);
}

// Lines for products that sum over rows: of 16 columns, pairs of rows.
void down(const bf16* x, int64_t stride, int64_t rows, int64_t width, Line* to) {
    for (int64_t w = 0; w < width; w += 16)
        for (int64_t r = 0; r < rows; r += SIDE) paired(x + r * stride + w, stride, SIDE, to + (w * rows + r * 16) / 32);
}

// The same with rows and columns exchanged, for the left operand.
void down_left(const bf16* x, int64_t stride, int64_t rows, int64_t width, Line* to) {
    Line pairs[DEEP];
    for (int64_t w = 0; w < width; w += 16)
        for (int64_t r = 0; r < rows; r += SIDE) {
            paired(x + r * stride + w, stride, SIDE, pairs);
            turned(pairs[0].of, ROWS, DEEP, to + (w * rows + r * 16) / 32);
        }
}

// -- blocks of queries ------------------------------------------------------------------------------------------------

// `rows` queries from `at` on of a segment; `high` rows and `line` columns of tiles.
struct Block {
    const Segment& s;
    const Place& place;
    int64_t all, at, rows, high, line;
    int64_t first() const { return s.prompt_size + at; }  // position of the first query
    int64_t seen(int64_t m) const { return std::min(line, up(first() + m + SIDE, SIDE)); }  // columns, by rows m..m + 31
};

template <typename Do> void blocks(const Segment& s, const Place& place, int64_t all, Do what) {
    const int64_t most = std::clamp<int64_t>(SCORES / std::max<int64_t>(1, s.prompt_size + s.own_size) / SIDE * SIDE, SIDE, MOST);
    for (int64_t at = 0; at < s.own_size; at += most) {
        const int64_t rows = std::min(most, s.own_size - at);
        what(Block{s, place, all, at, rows, up(rows, ROWS), up(s.prompt_size + at + rows, SIDE)});
    }
}

// Queries of a block, zeros behind them.
void queries(const Block& b, const bf16* x, int64_t stride, int64_t width, bf16* to) {
    for (int64_t i = 0; i < b.rows; i++) memcpy(to + i * width, x + (b.s.own + b.at + i) * stride, width * sizeof(bf16));
    memset(to + b.rows * width, 0, (up(b.rows, SIDE) - b.rows) * width * sizeof(bf16));
}

template <typename Do> void by_rows(const Block& b, Do what) {
    for (int64_t m = 0; m < b.high; m += SIDE) b.high - m > ROWS ? what(m, std::true_type{}) : what(m, std::false_type{});
}

// c (high, line) = a (high, width) times the keys' lines across the width.
void against(const Block& b, const bf16* a, int64_t width, const Line* keys, float* c) {
    const int64_t steps = width / SIDE;
    by_rows(b, [&](int64_t m, auto two) {
        for (int64_t n = 0; n < b.seen(m); n += SIDE) {
            clear<two>();
            add<two>(rows_of(a + m * width, width), {keys + b.place(n) * width / 32, steps * DEEP}, steps);
            give<two>(c + m * b.line + n, b.line);
        }
    });
}

// y (high, width) = share (high, line) times the keys' lines down the keys.
void mixed(const Block& b, const bf16* share, const Line* keys, int64_t width, float* y) {
    const int64_t before = b.place.from / SIDE, steps = b.all / SIDE;
    by_rows(b, [&](int64_t m, auto two) {
        const int64_t own = b.seen(m) / SIDE - before;
        for (int64_t w = 0; w < width; w += SIDE) {
            const Line* column = keys + w / 16 * steps * DEEP;
            clear<two>();
            add<two>(rows_of(share + m * b.line, b.line), {column, steps * DEEP}, before);
            add<two>(rows_of(share + m * b.line + before * SIDE, b.line), {column + b.place.at / SIDE * DEEP, steps * DEEP}, own);
            give<two>(y + m * width + w, width);
        }
    });
}

// sums (width, all) += x^T share, where x (rows, width) is laid out for the left.
void spread(const Block& b, const Line* x, const Line* share, int64_t width, float* sums) {
    const int64_t steps = up(b.rows, SIDE) / SIDE;
    for (int64_t n = 0; n < b.line; n += SIDE) {
        const int64_t from = std::max<int64_t>(0, n - b.first()) / SIDE;  // rows before see nothing of these columns
        for (int64_t w = 0; w < width; w += SIDE) {
            float* c = sums + w * b.all + b.place(n);
            Left left = lines_of(x + w / 16 * steps * DEEP, steps);
            left.at += from * left.next;
            take<true>(c, b.all);
            add<true>(left, {share + (n / 16 * steps + from) * DEEP, steps * DEEP}, steps - from);
            give<true>(c, b.all);
        }
    }
}

void rounded_to(const float* x, int64_t count, float times, bf16* to) {
    for (int64_t i = 0; i < count; i += WIDTH) store(to + i, load(x + i) * times);
}

// Of each query of a block: which keys it sees, and e^(score - largest) in place of their scores; `part` is one over
// the sum of it. What is seen begins and ends within a register; there, and in the registers before and behind, are zeros.
template <typename Do> void weights(const Block& b, float* score, const Heads& is, float* part, Do what) {
    for (int64_t i = 0; i < b.rows; i++) {
        float* row = score + i * b.line;
        const int64_t stop = b.first() + i + 1, start = is.window && stop > is.window ? stop - is.window : 0;
        part[i] = 1.0f / powers(row, start, stop, is.scaling);
        what(i, start / WIDTH * WIDTH, up(stop, WIDTH));
    }
}

// `what(j)` for a row's registers of keys that are seen, zeros elsewhere.
template <typename Do> void row_of(bf16* row, int64_t start, int64_t stop, int64_t line, Do what) {
    memset(row, 0, start * sizeof(bf16));
    for (int64_t j = start; j < stop; j += WIDTH) store(row + j, what(j));
    memset(row + stop, 0, (line - stop) * sizeof(bf16));
}

void zeros_behind(const Block& b, bf16* share) {
    memset(share + b.rows * b.line, 0, (up(b.rows, SIDE) - b.rows) * b.line * sizeof(bf16));
}

// to (tokens, width) += sums (width, all)^T times `times`, a response's share of the prompt's keys among them.
void gathered(const Layout& layout, const Tree& tree, const Segment* segments, const float* sums, int64_t width, float times, float* to) {
    std::fill(to, to + tree.size * width, 0.0f);
    Line block[ROWS];
    for (int64_t n = tree.first; n < tree.last; n++) {
        const Segment& s = segments[n];
        const Place& place = layout.of[n - tree.first];
        const int64_t stop = s.prompt_size + s.own_size;
        for (int64_t c = place.from; c < stop; c += ROWS)
            for (int64_t w = 0; w < width; w += ROWS) {
                turned((const uint32_t*)(sums + w * layout.all + place(c)), layout.all, ROWS, block);
                for (int64_t i = c; i < std::min(stop, c + ROWS); i++) {
                    float* row = to + ((i < s.prompt_size ? s.prompt + i : s.own + i - s.prompt_size) - tree.start) * width + w;
                    store(row, load(row) + load((const float*)block[i - c].of) * times);
                }
            }
    }
}

}  // namespace

// D and W are multiples of 32. Only where there are tiles.
extern "C" {

void attend_tiles_bf16(const bf16* q, const bf16* k, const bf16* v, bf16* out, const Segment* segments, const Tree* trees,
                       int64_t count, const Heads* heads) {
    const Heads is = *heads;
    const int64_t R = is.H / is.G;
    const Items items(count, is);
#pragma omp parallel num_threads(is.threads)
    {
        tiles_begin();
        Layout layout;
        float parts[MOST];
        Room<bf16> row_, q_, share_;
        Room<Line> keys_, values_;
        Room<float> score_, y_;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items.count; item++) {
            const Tree& tree = trees[item / (is.G * items.split)];
            const int64_t part = item % (is.G * items.split), g = part / items.split;
            layout.make(tree, segments);
            bf16* rows = row_(layout.all * std::max(is.D, is.W));
            Line *keys = keys_(layout.all * is.D / 32), *values = values_(layout.all * is.W / 32);
            in_order(layout, tree, segments, k + g * is.D, is.G * is.D, is.D, rows);
            across(rows, layout.all, is.D, keys);
            in_order(layout, tree, segments, v + g * is.W, is.G * is.W, is.W, rows);
            down(rows, is.W, layout.all, is.W, values);
            for (int64_t h = g * R + part % items.split; h < (g + 1) * R; h += items.split)
                for (int64_t n = tree.first; n < tree.last; n++)
                    blocks(segments[n], layout.of[n - tree.first], layout.all, [&](const Block& b) {
                        bf16 *query = q_(MOST * is.D), *share = share_(MOST * b.line);
                        float *score = score_(MOST * b.line), *y = y_(MOST * is.W);
                        queries(b, q + h * is.D, is.H * is.D, is.D, query);
                        against(b, query, is.D, keys, score);
                        weights(b, score, is, parts, [&](int64_t i, int64_t start, int64_t stop) {
                            const float* row = score + i * b.line;
                            row_of(share + i * b.line, start, stop, b.line, [&](int64_t j) { return load(row + j); });
                        });
                        zeros_behind(b, share);
                        mixed(b, share, values, is.W, y);
                        for (int64_t i = 0; i < b.rows; i++)
                            rounded_to(y + i * is.W, is.W, parts[i], out + ((b.s.own + b.at + i) * is.H + h) * is.W);
                    });
        }
        tiles_end();
    }
}

void attend_back_tiles_bf16(const bf16* q, const bf16* k, const bf16* v, const bf16* grad, bf16* dq, bf16* dk, bf16* dv,
                            const Segment* segments, const Tree* trees, int64_t count, const Heads* heads) {
    const Heads is = *heads;
    const int64_t R = is.H / is.G, tokens = count ? trees[count - 1].start + trees[count - 1].size : 0;
    const Items items(count, is);
    // Where several items share a key head, each has sums of its own, added in the order of heads at the end.
    const int64_t shares = is.G * items.split;
    std::vector<float> dk_parts(items.split > 1 ? tokens * shares * is.D : 0), dv_parts(items.split > 1 ? tokens * shares * is.W : 0);
#pragma omp parallel num_threads(is.threads)
    {
        tiles_begin();
        Layout layout;
        float parts[MOST];
        Room<bf16> row_, q_, grad_, share_, of_score_;
        Room<Line> across_k, across_v, down_k, left_, right_;
        Room<float> score_, change_, y_, dk_, dv_, sum_;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items.count; item++) {
            const Tree& tree = trees[item / shares];
            const int64_t part = item % shares, g = part / items.split;
            layout.make(tree, segments);
            bf16* rows = row_(layout.all * std::max(is.D, is.W));
            Line *keys = across_k(layout.all * is.D / 32), *values = across_v(layout.all * is.W / 32), *deep = down_k(layout.all * is.D / 32);
            in_order(layout, tree, segments, k + g * is.D, is.G * is.D, is.D, rows);
            across(rows, layout.all, is.D, keys);
            down(rows, is.D, layout.all, is.D, deep);
            in_order(layout, tree, segments, v + g * is.W, is.G * is.W, is.W, rows);
            across(rows, layout.all, is.W, values);
            float *key_sums = dk_(layout.all * is.D), *value_sums = dv_(layout.all * is.W);
            std::fill(key_sums, key_sums + layout.all * is.D, 0.0f);
            std::fill(value_sums, value_sums + layout.all * is.W, 0.0f);
            for (int64_t h = g * R + part % items.split; h < (g + 1) * R; h += items.split)
                for (int64_t n = tree.first; n < tree.last; n++)
                    blocks(segments[n], layout.of[n - tree.first], layout.all, [&](const Block& b) {
                        const int64_t high = up(b.rows, SIDE), size = MOST * b.line;
                        bf16 *query = q_(MOST * is.D), *above = grad_(MOST * is.W), *share = share_(size), *of_score = of_score_(size);
                        float *score = score_(size), *change = change_(size), *y = y_(MOST * is.D);
                        Line *left = left_(MOST * std::max(is.D, is.W) / 32), *right = right_(size / 32);
                        queries(b, q + h * is.D, is.H * is.D, is.D, query);
                        queries(b, grad + h * is.W, is.H * is.W, is.W, above);
                        against(b, query, is.D, keys, score);
                        against(b, above, is.W, values, change);
                        weights(b, score, is, parts, [&](int64_t i, int64_t start, int64_t stop) {
                            //  ds = p (dp - sum_j p_j dp_j)
                            const float *power = score + i * b.line, *dp = change + i * b.line, part = parts[i];
                            vec sums{};
                            for (int64_t j = start; j < stop; j += WIDTH) sums += load(power + j) * load(dp + j);
                            const float mean = sum(sums) * part;
                            row_of(share + i * b.line, start, stop, b.line, [&](int64_t j) { return load(power + j) * part; });
                            row_of(of_score + i * b.line, start, stop, b.line, [&](int64_t j) { return load(power + j) * part * (load(dp + j) - mean); });
                        });
                        zeros_behind(b, share);
                        zeros_behind(b, of_score);
                        mixed(b, of_score, deep, is.D, y);
                        for (int64_t i = 0; i < b.rows; i++)
                            rounded_to(y + i * is.D, is.D, is.scaling, dq + ((b.s.own + b.at + i) * is.H + h) * is.D);
                        down_left(query, is.D, high, is.D, left);
                        down(of_score, b.line, high, b.line, right);
                        spread(b, left, right, is.D, key_sums);
                        down_left(above, is.W, high, is.W, left);
                        down(share, b.line, high, b.line, right);
                        spread(b, left, right, is.W, value_sums);
                    });
            float* sums = sum_(tree.size * std::max(is.D, is.W));
            auto write = [&](const float* from, int64_t width, float times, std::vector<float>& parts, bf16* to) {
                gathered(layout, tree, segments, from, width, times, sums);
                for (int64_t t = 0; t < tree.size; t++)
                    if (items.split == 1) rounded_to(sums + t * width, width, 1.0f, to + ((tree.start + t) * is.G + g) * width);
                    else memcpy(parts.data() + ((tree.start + t) * shares + part) * width, sums + t * width, width * sizeof(float));
            };
            write(key_sums, is.D, is.scaling, dk_parts, dk);
            write(value_sums, is.W, 1.0f, dv_parts, dv);
        }
        tiles_end();
    }
    if (items.split == 1) return;
    add_parts(dk_parts.data(), dk, tokens * is.G, items.split, is.D, is.threads);
    add_parts(dv_parts.data(), dv, tokens * is.G, items.split, is.W, is.threads);
}
}
#endif
