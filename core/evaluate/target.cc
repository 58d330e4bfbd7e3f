#include "core/evaluate/target.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/evaluate/device_error.h"
#include "core/evaluate/fixed_tokens.h"
#include "core/evaluate/model_target.h"
#include "core/evaluate/tensors.h"
#include "core/model/weights.h"
#include "core/objective/validate.h"

namespace epo {
namespace {

// What a point of the residual stream is to a read.
Read ResidualRead(Read::Kind kind, ResidualPoint point, int64_t layer) {
  if (point == ResidualPoint::kPostAttention) {
    return {.kind = kind, .site = Read::Site::kPostAttention, .layer = layer};
  }
  return {.kind = kind,
          .site = Read::Site::kResidual,
          .layer = point == ResidualPoint::kPreBlock ? layer : layer + 1};
}

// Turns terms into reads. Vectors that are not of the residual stream are taken through the matrix
// between: v . (W x) is (v W) . x.
class TermReader {
 public:
  TermReader(const Model& model, ModelTarget::Parts& parts)
      : model_(model),
        parts_(parts),
        options_(at::TensorOptions(AccumulationType(model.weights().dtype()))
                     .device(model.weights().device())) {}

  TermReads operator()(const NeuronTerm& term) {
    return {Add({.kind = Read::Kind::kElement,
                 .site = Read::Site::kNeurons,
                 .layer = term.layer,
                 .which = term.neuron})};
  }

  TermReads operator()(const DirectionTerm& term) {
    const auto kind = term.standardise ? Read::Kind::kStandardised : Read::Kind::kDot;
    return {Add(ResidualRead(kind, term.point, term.layer), OnDevice(*term.vector))};
  }

  TermReads operator()(const FeatureTerm& term) {
    TermReads reads{
        Add(ResidualRead(Read::Kind::kDot, term.point, term.layer), OnDevice(*term.encoder))};
    reads.constant = term.bias;
    if (term.decoder_bias != nullptr) {
      for (size_t i = 0; i < term.encoder->size(); ++i) {
        reads.constant -= double{(*term.encoder)[i]} * double{(*term.decoder_bias)[i]};
      }
    }
    return reads;
  }

  TermReads operator()(const AttentionTerm& term) {
    return {Add({.kind = Read::Kind::kAttention,
                 .site = Read::Site::kHeads,
                 .layer = term.layer,
                 .which = term.head})};
  }

  TermReads operator()(const OutputTerm& term) {
    const LayerWeights& weights = model_.weights().layers[term.layer];
    const at::Tensor vector = OnDevice(*term.vector);
    Read read{.kind = Read::Kind::kDot, .site = Read::Site::kNeurons, .layer = term.layer};
    TermReads reads;
    if (term.head) {
      read.site = Read::Site::kHeads;
      const int64_t width = model_.config().head_dim;
      const int64_t first = *term.head * width;
      const at::Tensor part = weights.attention_output.weight.narrow(1, first, width);
      at::Tensor through = at::zeros({model_.config().heads * width}, options_);
      through.narrow(0, first, width).copy_(at::matmul(vector, part.to(options_)));
      reads.plus = Add(read, through);
    } else {
      reads.plus = Add(read, at::matmul(vector, weights.mlp_output.weight.to(options_)));
      if (weights.mlp_output.bias.defined()) {
        reads.constant = at::dot(vector, weights.mlp_output.bias.to(options_)).item<double>();
      }
    }
    return reads;
  }

  TermReads operator()(const LogitTerm& term) { return {AddHead(Read::Kind::kLogit, term.token)}; }

  TermReads operator()(const LogitDifferenceTerm& term) {
    TermReads reads{AddHead(Read::Kind::kLogit, term.token)};
    reads.minus = term.other ? AddHead(Read::Kind::kLogit, *term.other)
                             : AddHead(Read::Kind::kBestOther, term.token);
    return reads;
  }

  TermReads operator()(const ContinuationTerm& /*term*/) {
    return {AddHead(Read::Kind::kSurprisal, 0)};
  }

  TermReads operator()(const CosineTerm& term) {
    const Read read = ResidualRead(Read::Kind::kCosine, term.point, term.layer);
    const at::Tensor vector =
        term.vector != nullptr ? OnDevice(*term.vector)
                               : ReadHidden(model_, term.text, read.site, read.layer).to(options_);
    return {Add(read, vector / vector.norm())};
  }

 private:
  at::Tensor OnDevice(const std::vector<float>& values) const {
    return ToDevice(values, model_.weights().device()).to(options_);
  }

  size_t Add(Read read, at::Tensor vector = {}) {
    if (vector.defined()) {
      read.vector = parts_.vectors.size();
      parts_.vectors.push_back(std::move(vector));
    }
    parts_.reads.push_back(read);
    return parts_.reads.size() - 1;
  }

  size_t AddHead(Read::Kind kind, int64_t which) {
    return Add({.kind = kind, .site = Read::Site::kHead, .which = which});
  }

  const Model& model_;
  ModelTarget::Parts& parts_;
  const at::TensorOptions options_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Target>> Target::Create(const Model& model,
                                                             Objective objective) {
  const FieldViolations bad = ValidateObjective(objective, model.config(), std::nullopt);
  if (!bad.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(bad[0].field, " ", bad[0].description));
  }
  const at::AutoGradMode no_grad(false);
  auto parts = std::make_shared<ModelTarget::Parts>();
  std::vector<double> scales;
  bool needs_scales = false;
  try {
    TermReader read(model, *parts);
    for (const Term& term : objective.terms) {
      parts->terms.push_back(std::visit(read, term.kind));
      scales.push_back(term.scale.value_or(1));
      needs_scales = needs_scales || !term.scale.has_value();
    }
  } catch (const c10::Error& error) {
    return DeviceError("making an objective", error);
  }
  parts->objective = std::move(objective);
  return std::make_shared<ModelTarget>(model, std::move(parts), std::move(scales), needs_scales);
}

ModelTarget::ModelTarget(const Model& model, std::shared_ptr<const Parts> parts,
                         std::vector<double> scales, bool needs_scales)
    : model_(model),
      parts_(std::move(parts)),
      scales_(std::move(scales)),
      needs_scales_(needs_scales),
      combiner_(parts_->objective, parts_->terms, scales_) {}

std::shared_ptr<const Target> ModelTarget::WithScales(std::span<const double> scales) const {
  return std::make_shared<ModelTarget>(model_, parts_,
                                       std::vector<double>(scales.begin(), scales.end()), false);
}

const absl::StatusOr<Plan>& ModelTarget::Find(int64_t tokens) const {
  const auto found = plans_.find(tokens);
  if (found != plans_.end()) return found->second;
  return plans_
      .emplace(tokens, MakePlan(objective(), model_.config(), reads(), parts_->terms, tokens))
      .first->second;
}

absl::Status ModelTarget::CheckLength(int64_t tokens) const {
  if (tokens < 1 || tokens > model_.config().context_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a prompt of ", tokens, " tokens; the model takes 1 to ", model_.config().context_length));
  }
  return Find(tokens).status();
}

const Plan& ModelTarget::PlanFor(int64_t tokens) const { return *Find(tokens); }

}  // namespace epo
