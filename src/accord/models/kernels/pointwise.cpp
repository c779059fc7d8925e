// Norms, gates and rotations: one pass over memory each, where torch makes three to ten. What each computes stands in
// accord/models/norms.py, gates.py and rotation.py, in torch's operations; widths are multiples of 16. All arithmetic is
// float32, T is what is read and written.

#include "vector.h"

namespace {

// Pieces of work go to whoever is free: so many tokens, numbers, or shares of all.
constexpr int64_t TOKENS = 16, NUMBERS = 1 << 14;
constexpr int PARTS = 64;

void norm(const float* x, const float* w, bf16* y, float* r, int64_t rows, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, TOKENS)
    for (int64_t t = 0; t < rows; t++) {
        const float* row = x + t * width;
        vec squares{};
        for (int64_t d = 0; d < width; d += WIDTH) squares += load(row + d) * load(row + d);
        r[t] = 1.0f / std::sqrt(sum(squares) / width + eps);
        for (int64_t d = 0; d < width; d += WIDTH) store(y + t * width + d, load(row + d) * r[t] * load(w + d));
    }
}

// x += more, in place, and the norm of that.
void add_norm(float* x, const bf16* more, const float* w, bf16* y, int64_t rows, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, TOKENS)
    for (int64_t t = 0; t < rows; t++) {
        float* row = x + t * width;
        vec squares{};
        for (int64_t d = 0; d < width; d += WIDTH) {
            vec z = load(row + d) + load(more + t * width + d);
            store(row + d, z);
            squares += z * z;
        }
        float r = 1.0f / std::sqrt(sum(squares) / width + eps);
        for (int64_t d = 0; d < width; d += WIDTH) store(y + t * width + d, load(row + d) * r * load(w + d));
    }
}

// dw may be null. Its sum over tokens is made in PARTS, whatever the number of threads.
void norm_back(const bf16* grad, const float* x, const float* w, const float* r, float* dx, float* dw, int64_t rows,
               int64_t width, int threads) {
    std::vector<float> parts(dw ? PARTS * width : 0);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int part = 0; part < PARTS; part++) {
        float* own = dw ? parts.data() + part * width : nullptr;
        for (int64_t t = rows * part / PARTS; t < rows * (part + 1) / PARTS; t++) {
            const float* row = x + t * width;
            const bf16* up = grad + t * width;
            vec both{};
            for (int64_t d = 0; d < width; d += WIDTH) {
                vec g = load(up + d), n = load(row + d) * r[t];
                if (own) store(own + d, load(own + d) + g * n);
                both += g * load(w + d) * n;
            }
            float share = sum(both) / width;
            for (int64_t d = 0; d < width; d += WIDTH)
                store(dx + t * width + d, (load(up + d) * load(w + d) - load(row + d) * r[t] * share) * r[t]);
        }
    }
    for (int64_t d = 0; dw && d < width; d++) {
        dw[d] = 0;
        for (int part = 0; part < PARTS; part++) dw[d] += parts[part * width + d];
    }
}

// A row of gate and up begins every `stride` numbers: both may be halves of one product.
template <typename T>
void gate(const T* gate, const T* up, T* y, int64_t rows, int64_t width, int64_t stride, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, TOKENS)
    for (int64_t t = 0; t < rows; t++)
        for (int64_t d = 0; d < width; d += WIDTH) {
            vec g = load(gate + t * stride + d);
            store(y + t * width + d, rounded<T>(g * sigmoid(g)) * load(up + t * stride + d));
        }
}

template <typename T>
void gate_back(const T* grad, const T* gate, const T* up, T* dgate, T* dup, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, NUMBERS / WIDTH)
    for (int64_t i = 0; i < count; i += WIDTH) {
        vec d = load(grad + i), g = load(gate + i), share = sigmoid(g);
        store(dgate + i, rounded<T>(d * load(up + i)) * share * (1.0f + g * (1.0f - share)));
        store(dup + i, d * rounded<T>(g * share));
    }
}

// (rows, heads, 2 halves), a row every `stride` numbers, by angles (rows, halves).
template <typename T>
void turn(const T* x, const float* cos, const float* sin, T* y, int64_t rows, int64_t heads, int64_t halves, int64_t stride,
          int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, TOKENS)
    for (int64_t t = 0; t < rows; t++)
        for (int64_t h = 0; h < heads; h++) {
            const T* from = x + t * stride + h * 2 * halves;
            T* to = y + (t * heads + h) * 2 * halves;
            for (int64_t d = 0; d < halves; d += WIDTH) {
                vec a = load(from + d), b = load(from + halves + d);
                vec c = load(cos + t * halves + d), s = load(sin + t * halves + d);
                store(to + d, a * c - b * s);
                store(to + halves + d, b * c + a * s);
            }
        }
}

}  // namespace

extern "C" {

void norm_bf16(const float* x, const float* w, bf16* y, float* r, int64_t rows, int64_t width, float eps, int threads) {
    norm(x, w, y, r, rows, width, eps, threads);
}
void norm_back_bf16(const bf16* grad, const float* x, const float* w, const float* r, float* dx, float* dw, int64_t rows,
                    int64_t width, int threads) {
    norm_back(grad, x, w, r, dx, dw, rows, width, threads);
}
void add_norm_bf16(float* x, const bf16* more, const float* w, bf16* y, int64_t rows, int64_t width, float eps, int threads) {
    add_norm(x, more, w, y, rows, width, eps, threads);
}

#define OF(T, NAME)                                                                                                         \
    void gate_##NAME(const T* a, const T* b, T* y, int64_t rows, int64_t width, int64_t stride, int threads) {              \
        gate(a, b, y, rows, width, stride, threads);                                                                        \
    }                                                                                                                       \
    void gate_back_##NAME(const T* grad, const T* a, const T* b, T* da, T* db, int64_t count, int threads) {                \
        gate_back(grad, a, b, da, db, count, threads);                                                                      \
    }                                                                                                                       \
    void turn_##NAME(const T* x, const float* cos, const float* sin, T* y, int64_t rows, int64_t heads, int64_t halves,     \
                     int64_t stride, int threads) {                                                                         \
        turn(x, cos, sin, y, rows, heads, halves, stride, threads);                                                         \
    }
OF(float, f32)
OF(bf16, bf16)
}
