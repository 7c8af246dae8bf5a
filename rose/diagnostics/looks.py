"""What is made before anything is trained or measured, and what nothing rests on (`rose.run.early`)."""

from rose import keys
from rose.config.choices import Dtype, Representation, Until
from rose.config.schema import Config, Model
from rose.errors import RoseError
from rose.evaluation import questions
from rose.models import loading, quantized
from rose.stages.graph import Node
from rose.training import bare, trial

ADAPTS = {Representation.gradients, Representation.loss_drop}
READS = ADAPTS | {
    Representation.perplexity,
    Representation.ifd,
    Representation.readout,
    Representation.hidden,
    Representation.answer_states,
}


def first_looks(config: Config, nodes: dict[str, Node]) -> dict[str, Node]:
    """One short row through each model that has not been trained here, and the questions of tasks.

    Raises RoseError for a model or a precision that cannot do what the job asks of it.
    """
    model, student = config.model, config.student
    known = {method.representation for method in keys.selecting(config)}
    per_example = Representation.gradients in known
    answer, trained, looks = _longest_answer(config, nodes), "finetune" in nodes, {}
    fits = trained and _until(config, Until.finetune)
    if _warms_up(config, bool(known & ADAPTS)) or (fits and student is None):
        _refuse_float16("model", model)
    if fits and student is not None:
        _refuse_float16("student", student)
    if student is None:
        looks["trial"] = _trial("model", model, trained, per_example, answer, nodes["base"])
    else:
        if known & READS:
            looks["trial"] = _trial("model", model, bool(known & ADAPTS), per_example, None, nodes["base"])
        looks["student_trial"] = _trial("student", student, trained, False, answer, nodes["student_base"])
    if config.tasks.path:
        asked = {"tasks": keys.tasks(config.tasks), "source": questions.fingerprint(config.tasks)}
        looks["questions"] = Node(questions.read_ahead, label=config.tasks.name, **asked)
    return {name: node for name, node in looks.items() if node is not None}


def _until(config: Config, end: Until) -> bool:
    """Whether a job goes on as far as that."""
    return list(Until).index(config.until) >= list(Until).index(end)


def _warms_up(config: Config, adapts: bool) -> bool:
    """Whether the model that selects is trained: by a method that adapts it, or as what is asked for."""
    asked = config.until in (Until.warmup, Until.features, Until.targets)
    return asked or (adapts and _until(config, Until.warmup))


def _refuse_float16(name: str, model: Model) -> None:
    """In a model that is trained."""
    if model.numerics.dtype == Dtype.float16:
        fault = "small gradients vanish in it, as no loss is scaled in training"
        raise RoseError(f"{name}.numerics.dtype=float16: {fault}; must be bfloat16 or float32 where a model is trained")


def _trial(
    name: str, model: Model, adapted: bool, per_example: bool, answer: tuple[str, int] | None, base: Node
) -> Node | None:
    """One short row through a model; one that is made here has been trained just so. RoseError: it cannot be."""
    lora = model.lora if adapted else None
    quantized.refuse(model.base, model.numerics.quantization, loading.device(), name)
    bare.refuse(model.base, lora, model.max_length, answer, name)
    if model.base.pretraining is not None:
        return None
    settings = {"lora": lora, "per_example": per_example, "numerics": model.numerics, "base": base}
    return Node(trial.try_out, max_length=model.max_length, answer=answer, **settings)


def _longest_answer(config: Config, nodes: dict[str, Node]) -> tuple[str, int] | None:
    """The key of what lets answers be longest, and its value; None where nothing is answered."""
    answers = {}
    if "verdicts" in nodes or config.until is Until.answers:
        answers["evaluation.max_new_tokens"] = config.evaluation.max_new_tokens
    if "tasks" in nodes:
        answers["tasks.max_new_tokens"] = config.tasks.max_new_tokens
    return max(answers.items(), key=lambda each: each[1], default=None)
