// What is made of the logits of a vocabulary: two passes over a row, which stays in a core's cache, in float32.
// The equations stand in accord/models/logits.py and accord/rollouts/draw.py. V, the size of the vocabulary, is a multiple
// of 16.

#include "vector.h"

namespace {

struct Row { float top, total, mixed; };  // largest z, sum of e^(z - top), sum of e^(z - top) (z - top); z = times x

template <typename T> Row row_of(const T* x, int64_t V, float times) {
    vec most = load(x) * times, total{}, mixed{};
    for (int64_t i = 0; i < V; i += WIDTH) { vec z = load(x + i) * times; most = z > most ? z : most; }
    float top = largest(most);
    for (int64_t i = 0; i < V; i += WIDTH) {
        vec z = load(x + i) * times - top, p = exponential(z);
        total += p;
        mixed += p == 0.0f ? vec{} : p * z;
    }
    return {top, sum(total), sum(mixed)};
}

// logprob = z_token - log sum e^z;  entropy = log sum e^z - sum p z. entropy may be null.
template <typename T>
void logprob(const T* x, const int64_t* token, float* logprob, float* entropy, int64_t rows, int64_t V, float times,
             int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < rows; t++) {
        Row row = row_of(x + t * V, V, times);
        float one[WIDTH], rest = std::log(row.total);
        int64_t block = token[t] / WIDTH * WIDTH;
        store(one, load(x + t * V + block) * times);
        logprob[t] = one[token[t] - block] - row.top - rest;
        if (entropy) entropy[t] = rest - row.mixed / row.total;
    }
}

// In place of x its gradient:  times (onehot g - p (g + h (log p + entropy))), for g and h those of both results.
template <typename T>
void logprob_back(T* x, const int64_t* token, const float* grad, const float* grad_entropy, int64_t rows, int64_t V, float times,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < rows; t++) {
        T* row = x + t * V;
        Row is = row_of(row, V, times);
        float g = grad[t], h = grad_entropy ? grad_entropy[t] : 0.0f;
        float part = 1.0f / is.total, constant = g - h * is.mixed / is.total;  // h (log p + entropy) = h (z - mean z)
        int64_t block = token[t] / WIDTH * WIDTH;
        for (int64_t i = 0; i < V; i += WIDTH) {
            vec z = load(row + i) * times - is.top, p = exponential(z) * part;
            vec d = p == 0.0f ? vec{} : -p * (constant + h * z);
            if (i == block) {
                float one[WIDTH];
                store(one, d);
                one[token[t] - block] += g;
                d = load(one);
            }
            store(row + i, d * times);
        }
    }
}

constexpr int64_t BLOCK = 256;  // entries whose weights are summed in float32; blocks are summed in float64

// Token by inverse of the cumulated weights e^((x - top) / temperature), `times` being 1 / temperature; its log-probability
// at temperature 1, and of having been drawn. -1 where logits are not finite.
template <typename T>
void draw(const T* x, const double* uniform, int64_t* token, double* logprob, double* drawn, int64_t rows, int64_t V,
          float times, int threads) {
    const int64_t count = (V + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads)
    {
        std::vector<double> until(count + 1, 0.0);  // sum of the weights before each block
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < rows; r++) {
            const T* row = x + r * V;
            vec most = load(row), plain{};
            for (int64_t i = 0; i < V; i += WIDTH) { vec z = load(row + i); most = z > most ? z : most; }
            const float top = largest(most);
            double total = 0;
            for (int64_t c = 0; c < count; c++) {
                const int64_t end = (c + 1) * BLOCK < V ? (c + 1) * BLOCK : V;
                vec some{};
                for (int64_t i = c * BLOCK; i < end; i += WIDTH) {
                    vec z = load(row + i) - top, w = exponential(z * times);
                    some += w;
                    if (times != 1.0f) plain += exponential(z);
                }
                until[c + 1] = until[c] + sum(some);
                if (times == 1.0f) total = until[c + 1];
                else { total += sum(plain); plain = vec{}; }
            }
            const double all = until[count], target = uniform[r] * all;
            token[r] = -1;
            if (!(std::isfinite(all) && all > 0)) continue;
            int64_t c = 0;  // the first beyond the target, and at most the last that added anything
            while (until[c + 1] <= target && until[c + 1] < all) c++;
            double below = until[c], before = 0, whole = 0;
            const int64_t begin = c * BLOCK, end = begin + BLOCK < V ? begin + BLOCK : V;
            float weight[BLOCK];
            for (int64_t i = begin; i < end; i += WIDTH) store(weight + i - begin, exponential((load(row + i) - top) * times));
            for (int64_t i = 0; i < end - begin; i++) whole += weight[i];
            int64_t i = 0;
            while ((before += weight[i]) <= target - below && before < whole) i++;
            float z[WIDTH];
            const int64_t at = begin + i, line = at / WIDTH * WIDTH;
            store(z, load(row + line) - top);
            token[r] = at;
            logprob[r] = z[at - line] - std::log(total);
            drawn[r] = std::log(weight[i] / all);
        }
    }
}

}  // namespace

extern "C" {

#define OF(T, NAME)                                                                                                         \
    void logprob_##NAME(const T* x, const int64_t* token, float* y, float* entropy, int64_t rows, int64_t V, float times,   \
                        int threads) {                                                                                      \
        logprob(x, token, y, entropy, rows, V, times, threads);                                                             \
    }                                                                                                                       \
    void logprob_back_##NAME(T* x, const int64_t* token, const float* grad, const float* grad_entropy, int64_t rows,        \
                             int64_t V, float times, int threads) {                                                         \
        logprob_back(x, token, grad, grad_entropy, rows, V, times, threads);                                                \
    }                                                                                                                       \
    void draw_##NAME(const T* x, const double* uniform, int64_t* token, double* logprob, double* drawn, int64_t rows,       \
                     int64_t V, float times, int threads) {                                                                 \
        draw(x, uniform, token, logprob, drawn, rows, V, times, threads);                                                   \
    }
OF(float, f32)
OF(bf16, bf16)
}
