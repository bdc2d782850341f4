"""The command line of models: `gptwin model`, `train`, `chat`, `generate`, `evaluate`, `prompt`.

Thin, as cli.py: it reads arguments and calls.
"""

from typing import Annotated

import typer


def model(
    preset: Annotated[
        str | None, typer.Argument(help="Such as gpt2 or gpt3-175b; default: a table of all.")
    ] = None,
    band: Annotated[
        int | None, typer.Option(help="GPT-3: keys an odd layer's query sees; 0: all.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a published model's size, parameters, FLOPs and memory, exactly.

    Exit code 2 if there is no such model, or its architecture was never published.
    """
    from .rl.studies import model_card

    raise typer.Exit(model_card.print_model(preset, band=band, as_json=json))


def generate(
    weights: Annotated[str, typer.Option(help="Directory of a GPT-2 and its tokenizer.")],
    prompt: Annotated[str, typer.Option(help="Text to continue; may be empty.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="The most tokens to add.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from this share.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    reference: Annotated[bool, typer.Option("--reference", help="Run the NumPy model.")] = False,
) -> None:
    """Continue a text. The same seed gives the same tokens, on the kernels and in NumPy."""
    from .rl.continuation import continue_text

    continued = continue_text(
        weights,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        reference=reference,
    )
    print(prompt + continued.text)


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a GPT-2, or of a run.")],
    data: Annotated[str, typer.Argument(help="JSON lines: questions with choices, or prompts.")],
    shots: Annotated[int, typer.Option(help="Examples before each question.")] = 0,
    train: Annotated[str, typer.Option(help="JSON lines to draw these from.")] = "",
    score: Annotated[
        list[str] | None, typer.Option(help="Such as per_token; may be repeated; default: all.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Context of the score `against`; empty: a document's beginning.")
    ] = "Answer:",
    template: Annotated[
        str, typer.Option(help="Around a question, such as 'Q: {question}\\nA:'.")
    ] = "{question}",
    end: Annotated[str, typer.Option(help="Follows each choice, and is scored with it.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Ask as a user of a chat.")] = False,
    samples: Annotated[int, typer.Option(help="Answers to each prompt, for pass@k.")] = 1,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token.")] = 0.0,
    beams: Annotated[int, typer.Option(help="Search for each answer with so many.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 32,
    seed: Annotated[int, typer.Option(help="Of examples and samples.")] = 0,
    out: Annotated[str, typer.Option(help="Stores every answer.")] = "evaluation.jsonl",
) -> None:
    """Ask a model questions of your own: choices by log P, or answers by exact match.

    Prints the accuracy with n and its interval: docs/evaluate.md.
    """
    from .rl.evaluation import console

    options = console.Options(
        shots, train, tuple(score or ()), against, template, end, chat, samples, temperature,
        beams, max_new_tokens, seed, out,
    )  # fmt: skip
    raise typer.Exit(console.evaluate(model, data, options))


def train(
    stage: Annotated[
        str,
        typer.Argument(
            help="pretrain, sft, reward, ppo, all, chatgpt (small, graded), or lineage (five)."
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE.KEY=VALUE]...", help="Settings, over the file's."),
    ] = None,
    config: Annotated[str | None, typer.Option(help="TOML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier run.")] = False,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Skip what cannot be read in data files.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a stage of the ChatGPT pipeline, or the whole chain.

    Ctrl-C ends after the step, with a checkpoint. Exit code 1 if `chatgpt` misses a threshold.
    """
    from .rl import command

    raise typer.Exit(
        command.train(
            stage,
            config,
            changes or [],
            resume=resume,
            skip_bad_lines=skip_bad_lines,
            quiet=quiet,
        )
    )


def prompt(
    technique: Annotated[
        str, typer.Argument(help="Such as chain-of-thought; all: every one.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="Folder of a model; default: a small one, trained at first use.")
    ] = "",
    questions: Annotated[int, typer.Option(help="How many are asked.")] = 200,
    seed: Annotated[int, typer.Option(help="Of questions and samples.")] = 0,
    show: Annotated[int, typer.Option(help="Print the calls of so many questions.")] = 0,
    json: Annotated[str, typer.Option(help="Store the rows in this file.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Let a small model answer by a prompting technique, beside its controls, at counted cost.

    Without a technique: lists them. docs/prompting.md says what came of it.
    """
    from .rl.studies import techniques

    raise typer.Exit(
        techniques.prompt(
            technique, model=model, n=questions, seed=seed, show=show, json_file=json, quiet=quiet
        )
    )


def chat(
    run: Annotated[str, typer.Argument(help="Folder of a run, or of a model.")] = "runs/chatgpt",
    temperature: Annotated[float, typer.Option(help="0: the likeliest token.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens an answer may have; default: a quarter of n_ctx.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    best_of: Annotated[
        int, typer.Option(help="Sample so many answers; the run's reward model picks one.")
    ] = 1,
    explain: Annotated[
        bool, typer.Option("--explain", help="Of an agent: candidates, scores, why one was chosen.")
    ] = False,
) -> None:
    """Talk to a model that the pipeline trained, or to a dialogue agent."""
    from .rl import command

    raise typer.Exit(
        command.chat(
            run,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            best_of=best_of,
            explain=explain,
        )
    )
