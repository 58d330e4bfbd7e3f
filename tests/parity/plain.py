"""What the core must compute, done the plain way: transformers and autograd, every prompt whole, no trick."""

import collections

import torch
import transformers

transformers.utils.logging.disable_progress_bar()

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PlainModel:
    """A checkpoint directory run by transformers on the CPU. Prompts are lists of ids; an objective is (layer, neuron)."""

    def __init__(self, path, dtype="float64"):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype]).eval()
        self.model.requires_grad_(False)
        self.embedding = self.model.get_input_embeddings().weight

    def _second_mlp_matrix(self, layer):
        mlp = self.model.model.layers[layer].mlp
        return mlp.fc2 if hasattr(mlp, "fc2") else mlp.down_proj

    def _run(self, layer, **inputs):
        """(logits, the layer's neurons) of a batch of prompts of one length."""
        caught = []
        hook = self._second_mlp_matrix(layer).register_forward_hook(lambda module, args, output: caught.append(args[0]))
        try:
            logits = self.model(**inputs, use_cache=False).logits
        finally:
            hook.remove()
        return logits, caught[0]

    @torch.no_grad()
    def forward(self, ids, layer):
        """(logits [n, vocab], neurons [n, intermediate])."""
        logits, neurons = self._run(layer, input_ids=torch.tensor([ids]))
        return logits[0], neurons[0]

    @torch.no_grad()
    def scores(self, prompts, objective, batch=64):
        """(targets, cross_entropies) of any prompts, float64 tensors in their order."""
        layer, neuron = objective
        by_length = collections.defaultdict(list)
        for i, ids in enumerate(prompts):
            by_length[len(ids)].append(i)
        targets, cross_entropies = (torch.empty(len(prompts), dtype=torch.float64) for _ in range(2))
        for indices in by_length.values():
            for some in torch.tensor(indices).split(batch):
                ids = torch.tensor([prompts[i] for i in some])
                logits, neurons = self._run(layer, input_ids=ids)
                targets[some] = neurons[:, -1, neuron].double()
                log_probs = torch.log_softmax(logits[:, :-1].double(), -1)
                cross_entropies[some] = -log_probs.gather(2, ids[:, 1:, None])[..., 0].mean(1)
        return targets, cross_entropies

    def embedding_gradients(self, ids, objective):
        """(target's, cross-entropy's) gradient with respect to the embedded tokens, [n, hidden] each, labels held fixed."""
        layer, neuron = objective
        gradients = []
        for which in ("target", "cross_entropy"):
            embedded = self.embedding[torch.tensor([ids])].clone().requires_grad_()
            logits, neurons = self._run(layer, inputs_embeds=embedded)
            if which == "target":
                value = neurons[0, -1, neuron]
            else:
                value = torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(ids[1:]))
            gradients.append(torch.autograd.grad(value, embedded)[0][0])
        return gradients

    def one_hot_gradients(self, prompts, objective, penalties):
        """The gradient of -f + penalty * x with respect to each prompt's one-hot tokens, [prompts, n, vocab]; both paths: a token
        is embedded, and it is what its predecessor is asked to predict."""
        layer, neuron = objective
        one_hot = torch.nn.functional.one_hot(torch.tensor(prompts), self.embedding.shape[0]).to(self.embedding.dtype).requires_grad_()
        logits, neurons = self._run(layer, inputs_embeds=one_hot @ self.embedding)
        cross_entropy = -(torch.log_softmax(logits[:, :-1], -1) * one_hot[:, 1:]).sum(-1).mean(1)
        loss = -neurons[:, -1, neuron] + torch.as_tensor(penalties, dtype=self.embedding.dtype) * cross_entropy
        return torch.autograd.grad(loss.sum(), one_hot)[0]
