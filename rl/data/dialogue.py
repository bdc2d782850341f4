"""A conversation, and how it becomes tokens.

    <|user|> What is the opposite of hot?<|end|><|assistant|> cold<|end|>

Each turn is a token that names its speaker, a space and the text, and the end token. The model
learns what an assistant says and that it stops: in every assistant's turn the text and the end
token count, and nothing else does (`Encoded.trained`). The end token is not the padding token: a
model trained with one token for both never learns to stop.

The space is there for the words' sake. Byte-level BPE cuts a word together with the space before
it, so that " cold" within a sentence and "cold" at its start are tokens that have nothing in common
but what training gives them. After a space the first word of an answer is the same token as that
word wherever it was said before: copying, and checking a copy, compare tokens.

What a user writes is data: text that spells out a special token stays plain text, so nobody can end
their own turn and begin the assistant's.
"""

import dataclasses
from collections.abc import Sequence

from ...core.checks import refuse
from ..formats.tokenizer import Tokenizer
from ..formats.tokenizer_files import END_OF_TEXT

ROLES = ("system", "user", "assistant")
PAD, END = "<|pad|>", "<|end|>"
SPACE = " "  # before what is said
SPECIAL_TOKENS = (PAD, END_OF_TEXT, END, *(f"<|{role}|>" for role in ROLES))
# The same in Jinja, as transformers has it from a model's folder. What it writes is taken apart
# into tokens as a whole, so that it must refuse a text in which a special token is spelt out.
JINJA = (
    "{% for message in messages %}"
    f"{{% if message['role'] not in {list(ROLES)} %}}"
    f"{{{{ raise_exception('role: expected one of {', '.join(ROLES)}') }}}}{{% endif %}}"
    f"{{% for token in {list(SPECIAL_TOKENS)} %}}{{% if token in message['content'] %}}"
    "{{ raise_exception('content: expected text without special tokens, got ' + token) }}"
    "{% endif %}{% endfor %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes
    ----------
    role : str
        "system", "user" or "assistant".
    content : str
        What was said.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        """Refuse a role that is not one of `ROLES`."""
        if self.role not in ROLES:
            refuse("role", f"one of {', '.join(ROLES)}", repr(self.role))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Attributes
    ----------
    tokens : list of int
        The ids.
    trained : list of bool
        True where the token is one that an assistant had to produce: its words, and its end.
    """

    tokens: list[int]
    trained: list[bool]

    def __len__(self) -> int:
        return len(self.tokens)


class Template:
    """Turn conversations into tokens with one tokenizer.

    Parameters
    ----------
    tokenizer : Tokenizer
        Must know `SPECIAL_TOKENS`.

    Raises
    ------
    ValueError
        If it does not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.special_tokens]
        if missing:
            cause = "a tokenizer for text alone: train one with dialogue.SPECIAL_TOKENS"
            refuse("tokenizer", "one with a chat's special tokens", f"none for {missing}", cause)
        self.tokenizer = tokenizer
        ids = tokenizer.special_tokens
        self.pad, self.end, self.end_of_text = ids[PAD], ids[END], ids[END_OF_TEXT]
        self.speaker = {role: ids[f"<|{role}|>"] for role in ROLES}

    @property
    def exported(self) -> dict[str, str]:
        """What `weights.save_gpt2` writes of a model that chats by this template."""
        return {"end": END, "pad": PAD, "template": JINJA}

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """Encode a whole conversation, to be trained on.

        Parameters
        ----------
        messages : sequence of Message
            The turns, in order.

        Returns
        -------
        Encoded
        """
        tokens: list[int] = []
        trained: list[bool] = []
        for message in messages:
            said = self.response(message.content)
            tokens += [self.speaker[message.role], *said]
            trained += [False, *[message.role == "assistant"] * len(said)]
        return Encoded(tokens, trained)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation up to where the assistant is to speak.

        Parameters
        ----------
        messages : sequence of Message
            The turns so far; the last is not the assistant's.

        Returns
        -------
        list of int
            Ids that end with the assistant's speaker token.

        Raises
        ------
        ValueError
            If there is no turn, or the assistant spoke last.
        """
        if not messages or messages[-1].role == "assistant":
            last = f"a last turn by {messages[-1].role}" if messages else "no turn"
            refuse("messages", "a conversation in which the assistant is next to speak", last)
        return [*self.conversation(messages).tokens, self.speaker["assistant"]]

    def response(self, text: str) -> list[int]:
        """Encode what a speaker says, its end included: an answer to a prompt, for one.

        Parameters
        ----------
        text : str
            What is said.

        Returns
        -------
        list of int
        """
        return [*self.tokenizer.encode(SPACE + text), self.end]

    def text(self, response: Sequence[int]) -> str:
        """Read a generated response.

        Parameters
        ----------
        response : sequence of int
            Ids; the first end token and what follows it, and the space in front, are left out.

        Returns
        -------
        str
        """
        ids = list(response)
        if self.end in ids:
            ids = ids[: ids.index(self.end)]
        return self.tokenizer.decode([i for i in ids if i != self.pad]).removeprefix(SPACE)
