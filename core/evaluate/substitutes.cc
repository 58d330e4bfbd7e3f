#include "core/evaluate/substitutes.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "core/evaluate/flops.h"
#include "core/evaluate/tensors.h"
#include "core/model/linear.h"
#include "core/model/weights.h"

namespace epo {
namespace {

// Gradients of this many (parent, position, penalty) at a time: bounds the [rows, vocab] matrix. On
// a CPU as many as a job of the published settings has; a GPU would not be filled by them.
constexpr size_t kRowsAtOnce = 96;
constexpr size_t kGpuRowsAtOnce = 512;

size_t RowsAtOnce(const c10::Device& device) {
  return device.is_cpu() ? kRowsAtOnce : kGpuRowsAtOnce;
}

struct Row {
  const PreparedPrompt* parent;
  int position;
  float penalty;
  const AllowedTokens* allowed;
  // (rank, index of the query).
  std::vector<std::pair<int, size_t>> ranks;
};

// The gradients of `rows`, float32 [rows, vocab]. A handful of operations, however many rows.
at::Tensor Gradients(const Model& model, std::span<const Row> rows) {
  const Weights& weights = model.weights();
  const c10::ScalarType wide = AccumulationType(weights.dtype());
  std::vector<at::Tensor> of_target, of_cross_entropy, log_probs;
  std::vector<double> penalties, label_weights;
  std::vector<int64_t> predicted;
  for (const Row& row : rows) {
    of_target.push_back(row.parent->target_gradient.select(0, row.position));
    of_cross_entropy.push_back(row.parent->cross_entropy_gradient.select(0, row.position));
    penalties.push_back(row.penalty);
    // A token is also what its predecessors predict, in each context.
    const Plan& plan = *row.parent->plan;
    for (size_t b = 0; b < plan.branches.size(); ++b) {
      const Branch& branch = plan.branches[b];
      if (!branch.Counts(branch.prefix + row.position)) continue;
      const int64_t first = std::max(branch.first_counted, branch.prefix);
      predicted.push_back(std::ssize(penalties) - 1);
      log_probs.push_back(
          row.parent->branches[b].log_probs.select(0, branch.prefix + row.position - first));
      label_weights.push_back(row.penalty / static_cast<double>(branch.counted()) /
                              static_cast<double>(plan.contexts));
    }
  }
  const auto column = [&](const std::vector<double>& values) {
    return ToDevice(values, weights.device()).to(wide).unsqueeze(1);
  };
  const at::Tensor directions =
      (at::stack(of_cross_entropy).to(wide) * column(penalties) - at::stack(of_target))
          .to(weights.compute_dtype());
  at::Tensor gradients = Product(directions, weights.embedding).to(wide);
  if (!predicted.empty()) {
    gradients.index_add_(0, ToDevice(predicted, weights.device()),
                         at::stack(log_probs).mul_(column(label_weights)), -1);
  }
  return gradients.to(c10::kFloat);
}

}  // namespace

at::Tensor TokenGradient(const Model& model, const PreparedPrompt& parent, int position,
                         float penalty) {
  const at::AutoGradMode no_grad(false);
  const Row row{&parent, position, penalty, nullptr, {}};
  return Gradients(model, {&row, 1})[0];
}

std::vector<TokenId> RankSubstitutes(const Model& model, std::span<const SubstituteQuery> queries,
                                     EvaluatorCounters& counters) {
  const at::AutoGradMode no_grad(false);
  const size_t at_once = RowsAtOnce(model.weights().device());

  // Children of one slot at one position share a gradient; so do slots that share parent and
  // penalty.
  std::map<std::tuple<const Prepared*, int, float, const AllowedTokens*>, Row> distinct;
  for (size_t i = 0; i < queries.size(); ++i) {
    const SubstituteQuery& query = queries[i];
    Row& row = distinct[{query.parent, query.position, query.penalty, query.allowed}];
    row.parent = static_cast<const PreparedPrompt*>(query.parent);
    row.position = query.position;
    row.penalty = query.penalty;
    row.allowed = query.allowed;
    row.ranks.emplace_back(query.rank, i);
  }
  std::vector<Row> rows;
  for (auto& [key, row] : distinct) rows.push_back(std::move(row));

  std::vector<TokenId> tokens(queries.size());
  for (size_t first = 0; first < rows.size(); first += at_once) {
    const std::span<const Row> some =
        std::span(rows).subspan(first, std::min(at_once, rows.size() - first));
    const at::Tensor gradients = Gradients(model, some);
    counters.matmul_flops += gradients.size(0) * HeadFlops(model.config());
    int deepest = 0;
    for (size_t i = 0; i < some.size();) {
      size_t last = i;
      for (; last < some.size() && some[last].allowed == some[i].allowed; ++last) {
        for (const auto& [rank, query] : some[last].ranks) deepest = std::max(deepest, rank);
      }
      gradients.narrow(0, static_cast<int64_t>(i), static_cast<int64_t>(last - i))
          .masked_fill_(*some[i].allowed->forbidden, std::numeric_limits<float>::infinity());
      i = last;
    }
    // Ties fall as in the reference implementation, which calls the same kernel.
    const at::Tensor best =
        std::get<1>(
            gradients.narrow(0, 0, static_cast<int64_t>(some.size())).neg_().topk(deepest + 1))
            .to(at::kCPU)
            .contiguous();
    for (size_t i = 0; i < some.size(); ++i) {
      const int64_t* ranked = best.data_ptr<int64_t>() + static_cast<int64_t>(i) * best.size(1);
      for (const auto& [rank, query] : some[i].ranks) {
        tokens[query] = static_cast<TokenId>(ranked[rank]);
      }
    }
  }
  return tokens;
}

}  // namespace epo
