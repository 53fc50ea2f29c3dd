"""Questions about SplitLLM, each subject with one true and short answer.

Keep the answers in step with the design: where the product changes, a sentence here must change and the model
be trained again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One subject: the ways to ask for it, and the one answer."""

    name: str
    answer: str
    patterns: tuple[str, ...]


# The ways to ask "what is X", shared by every subject that is a word to be explained.
_WHAT_IS = (
    "[what is|what's|what are|what do you mean by|explain|can you explain|please explain|define|what does it "
    "mean,"
    "|tell me about|tell me what is|i do not understand|i don't know what is|what exactly is|describe|what "
    "on earth is]"
)


def _word(*nouns: str) -> tuple[str, ...]:
    choice = "[" + "|".join(nouns) + "]"
    return (
        f"{_WHAT_IS} {choice}?",
        f"{_WHAT_IS} {choice} [in splitllm|here|in this system|in simple words|actually|for a beginner]?",
        f"what does {choice} mean[| here| in splitllm| exactly]?",
        f"[what is {choice} for|what is {choice} good for|what does {choice} do|why do you need {choice}]?",
        f"[i keep reading about|i have heard of|what about|and] {choice}[, what is that|, what is it|, what "
        f"does it mean|]?",
    )


TOPICS: tuple[Topic, ...] = (
    Topic("splitllm",
        "SplitLLM runs one language model on two machines at once: your browser runs the first blocks, "
          "and a server runs the rest.",
          (*_word("splitllm", "split llm", "this project", "this system"),
           "[how does|how would] [splitllm|this|it all|this chat|this page] work?", "what am i looking at?",
           "what is [this|this page|this site|this website|this demo|this app] [|about|for]?",
           "[explain|describe] [splitllm|this page] in [one sentence|short|a few words]",
           "what [is special about|can you say about|do you know about] [splitllm|this page|this chat]?")),
    Topic("split", "A split is the place where the model is cut: the blocks before it run in your browser, "
          "the blocks after it run on the server.",
          (*_word("a split", "the split", "splitting", "split", "a cut", "the cut", "a split point"),
           "[how|where] is the model [split|cut|divided]?",
           "what does it mean [to split|to cut|to divide] [a|the] model?",
           "what [do you|does it] mean by [splitting|a split model|cutting the model]?",
           "[how does|how do you] [the splitting|splitting|split] [a model|work]?",
           "what is a split model?")),
    Topic("browser", "Your browser runs the embedding and the first blocks of the model, up to the split.",
          ("what [runs|is running|happens|is computed|gets computed|is done|is executed] in [my|the|a] "
          "browser?",
           "[what|which part|which parts|how much] of the model [runs|run|is|happens] in [my|the] browser?",
           "what does [my|the] browser [do|run|compute|calculate]?",
           "what [part|work] does [my|the] browser [do|have|run]?",
           "[which|what] [blocks|layers|parts|pieces|things] [run|are computed|are run] [in|by|inside] [my|"
           "the] browser?",
           "what [runs|happens] on my [side|computer|machine|laptop|device|end|own machine]?",
           "what is [my|the] [browser|computer] [doing|working on|for|good for]?",
           "[does|is] [my|the] browser [do anything|used]?",
           "what runs [here|locally|at home|on the client]?", "what does the client [do|run]?",
           "the browser, what does it run?")),
    Topic("server", "The server runs the blocks after the split, and the head that scores the next token.",
          ("what [runs|is running|happens|is computed|gets computed|is done] on [the|your|a] server?",
           "[what|which part|which parts|how much] of the model [runs|run|is|happens] on [the|your] server?",
           "what does [the|your] server [do|run|compute|still do|have to run]?",
           "[which|what] [blocks|layers|parts|pieces] [run|are computed|are run] [on|by] the server?",
           "what [runs|happens] [in the cloud|remotely|on the other side|on the other machine|at your end]?",
           "what is the server [doing|working on|for|good for|needed for]?",
           "why [do you|does it] need a server?",
           "what [work|job|part] does the server [do|have]?", "what remains [on|for] the server?")),
    Topic("privacy", "No, splitting is not privacy: your prompt can be recovered from the activations that "
        "your browser sends. "
          "Please do not type secrets.",
          ("is [my|the|a] [prompt|chat|text|data|conversation|message|input|question] [private|safe|secret|"
          "secure|protected|hidden|encrypted]?",
           "[is this|is it|are you|is splitllm|is splitting|is this chat] [private|safe|secure|confidential|"
           "safe to use]?",
           "can [the server|you|anyone|someone|anybody|other people|the operator] [see|read|recover|know|"
           "get] [my prompt|what i write|my messages|my text|what i ask|my data|my words]?",
           "[do you|does the server] [see|read|know|store|keep] [my prompt|what i write|my messages|my data|"
           "what i type]?",
           "does [splitting|splitllm|the split|this] [protect|keep|guard|help|hide] my [privacy|data|prompt|"
           "secrets]?",
           "what about [privacy|my privacy|data protection|secrets|my data]?",
           "[can|should|may] i [type|write|tell you] [secrets|passwords|my password|private things|a "
           "secret]?",
           "how [private|safe|secure] is [this|splitllm|my prompt|it]?",
           "does my [prompt|text|data] [stay|remain] [private|at home|in my browser|on my computer|secret]?",
           "can [my prompt|my text|my input] be [recovered|read|seen|reconstructed|stolen]?",
           "is splitting [privacy|good for privacy|a protection]?",
           "[can|could|might|will] [somebody|a stranger|others|people|they|anybody] [|else ][see|read|spy on|"
           "look at] [my words|what i say|what i wrote|what i ask|my chat|our chat|this conversation|"
           "my questions|what i say]?")),
    Topic("cheaper", "Every block that runs in your browser is work that the server does not have to do, "
          "so one server can serve more people.",
          ("why is [it|this|splitting|splitllm|a split|that] [cheaper|cheap|less expensive]?",
          "how does [it|this|splitting|splitllm|a split] save [money|cost|costs|work]?",
           "[why|how] [is|would] [it|splitting|splitllm] [cheaper|be cheaper|cost less|useful]?",
           "why [split|would you split|would anyone split|do you split|should i split|cut|divide] [a model|"
           "the model|it]?",
           "what [is the point|is the advantage|are the benefits|is the benefit|is the use|is the idea] of "
           "[splitting|splitllm|a split|this]?",
           "[who|what] [saves|is saved|gains] [by|with] [splitting|splitllm|a split]?",
           "what is [splitting|splitllm] good for?",
           "what does [splitting|it|splitllm] save?", "why does [it|splitting|this] cost less?",
           "is [it|splitting|splitllm] [cheaper|cheap]?",
           "how [does|can|would] [splitting|a split|splitllm|it] [cut|lower|reduce|save] [the |][cost|costs|bill|"
           "money]?",
           "[why|how] is [splitting|splitllm|it] good for [the|my] [budget|bill|wallet]?")),
    Topic("faster", "It is not always faster: with a split, every token makes a round trip to the server. "
          "The planner takes care that it stays fast enough.",
          ("why is [it|this|splitting|splitllm|a split|that] [faster|fast|so fast|quick|quicker]?",
          "is [it|this|splitting|splitllm] [faster|quicker|fast|slower|slow]?",
           "does [splitting|a split|splitllm|it] make [it|the model|the answers|chat|you] [faster|quicker|"
           "slower]?",
           "how fast [is|are] [splitllm|a split|it|you|this]?",
           "why [is it|are you|is this|is splitting] [so |]slow?",
           "what about [speed|latency|the speed]?",
           "[how much|how] [faster|slower] is [it|splitting|a split model]?",
           "does [it|splitting] [speed things up|slow things down|take longer]?")),
    Topic("block",
        "A block is one layer of the model: attention and a small feed-forward network. I have 8 of them.",
          (*_word("a block", "a decoder block", "blocks", "a layer", "decoder blocks", "the blocks",
          "layers"),
           "how many [blocks|layers|decoder blocks] [do you have|are there|has the model|does the model have|"
           "have you got]?",
           "what is [inside|in] a [block|layer]?", "what are [blocks|layers] made of?")),
    Topic("webgpu",
        "WebGPU lets a web page use the graphics chip of your computer. SplitLLM runs your blocks on it.",
          (*_word("webgpu", "web gpu"),
          "[do you|does splitllm|does this|does it] [use|need|work with] webgpu?",
           "[why|how] do you use webgpu?", "what has webgpu to do with it?",
           "how do you use my [gpu|graphics card|graphics chip]?",
           "do you use my [gpu|graphics card|graphics chip]?")),
    Topic("planner", "The planner on the server chooses k: the split that leaves the server the least work "
          "while the answers still come in time.",
          (*_word("the planner", "a planner", "planner"), "who [chooses|picks|decides|sets|selects|"
          "determines|decided] [k|the split|where to split|how much runs here|the cut|on k]?",
           "how is [k|the split|the cut] [chosen|picked|decided|set|found|determined]?",
           "how do you [choose|pick|find|decide] [k|the split|where to cut]?",
           "[who|what] [decides|chooses] [how many blocks run here|where the model is cut|where the model is "
           "split|how many blocks i get]?",
           "can i [choose|set|pick|change] [k|the split]?",
           "why is k [so small|so big|what it is|this number]?", "where does k come from?")),
    Topic("k", "k is the number of blocks that run in your browser. The server runs the others.",
          (*_word("k", "the k", "the number k", "the letter k"), "what does k [stand for|mean|tell me|say]?",
          "what is k equal to?",
           "[what if|what happens if|what does it mean if] k is [0|8|zero|big|small]?")),
    Topic("no_gpu", "Yes, it works without a GPU: your browser can use WebAssembly, which is slower, or the "
        "server runs all the blocks.",
          ("does [it|this|splitllm|the page] [work|run] without [a gpu|webgpu|a graphics card|gpu|a graphics "
          "chip]?",
           "[what if|what happens if] [i have|my computer has|there is|i've got] no [gpu|webgpu|graphics "
           "card|graphics chip]?",
           "do i need [a gpu|a graphics card|webgpu|a special computer|a fast computer|special hardware|a "
           "good graphics card]?",
           "i [have no|don't have a|do not have a|haven't got a] [gpu|graphics card][, does it work|, is "
           "that ok|, what now|]?",
           "can i [use|run] [it|splitllm|this] without [a gpu|webgpu|a graphics card]?",
           "[my browser|my phone|my laptop|my computer] has no [webgpu|gpu], [does it work|what now|is that "
           "a problem]?",
           "what is webassembly?", "is a gpu [needed|required|necessary]?",
           "does it [work|run] on [a cpu|the cpu|an old computer|my old laptop]?")),
    Topic("sent", "For each token your browser sends the hidden states at the split, and the server sends "
        "back the next token.",
          ("what [is sent|is transmitted|gets sent|travels|goes] [to the server|over the network|over the "
          "wire|between browser and server|between us|there]?",
           "what does [my|the] browser send[| to the server| over the network]?",
           "what [data|information] [is sent|leaves my computer|leaves my browser|is exchanged|goes over the "
           "network]?",
           "how do [the browser and the server|both sides|the two machines] [talk|communicate|work "
           "together]?", "what does the server send back?",
           "what goes over the [wire|network|websocket]?",
           "do you send my [text|prompt|words] to the server?")),
    Topic("hidden", "Hidden states, or activations, are the numbers that one block hands on to the next one.",
          _word("hidden states", "activations", "a hidden state", "the activations", "the hidden states",
              "an activation")),
    Topic("token", "A token is a small piece of text, often a word or a part of one.",
          (*_word("a token", "tokens", "a tokenizer", "the tokenizer"), "how long is a token?",
          "is a token a word?")),
    Topic("embedding", "The embedding turns each token into a list of numbers for the first block.",
          _word("the embedding", "an embedding", "embedding", "embeddings")),
    Topic("head",
        "The head turns the last hidden state into a score for every token, and the best one comes next.",
          (*_word("the head", "the model head", "a head", "the output head"),
          "how is the next [token|word] [chosen|picked|found]?")),
    Topic("cache",
        "The KV cache keeps what attention has already computed, so that only new tokens have to be run.",
          _word("the kv cache", "kv cache", "a kv cache", "the cache", "kv")),
    Topic("grow", "Yes, k can grow while you chat: the server starts alone, and your browser joins in as its "
        "blocks arrive.",
          ("[can|does|will|may] [k|the split] [change|grow|move|increase|get bigger]?",
          "does k stay the same?", "why does k [grow|change|go up|increase|move]?",
           "why [can i|could i] chat [at once|right away|immediately|before the download is done]?",
           "do i have to wait for the download?",
           "what happens [at the start|in the beginning|while the blocks load|during the download]?")),
    Topic("download", "Your browser downloads each block only once, and checks its hash before it uses it.",
          ("what does [my|the] browser download?",
          "how much [is downloaded|do i download|must i download|data is it]?",
          "do i have to [download|install] [anything|something|the model]?",
           "are the [downloads|weights|blocks|files] [checked|verified|safe]?",
           "how are the [downloads|weights|blocks] [checked|verified|protected]?",
           "is [each block|every block|a block] downloaded [once|again|twice|every time]?",
           "where do the [weights|blocks] come from?", "how big is the download?")),
    Topic("bundle", "A bundle is one folder with every block of a model, its tokenizer and a manifest. It "
        "serves every split.",
          (*_word("a bundle", "bundle", "the bundle", "bundles"), "what is [in|inside] a bundle?")),
    Topic("export",
        "Run splitllm export with a Hugging Face model, and you get a bundle that splitllm serve can use.",
          ("[how|can] [do i|can i|do you|i] [use|bring|add|run|export|split] [my own|another|my|a bigger|a "
          "different|a hugging face] model?",
           "how [do i|can i|to] [export|convert|make|create|build] a [model|bundle]?",
           "[can i|may i] use [another model|my own model|a bigger model|my model]?",
           "which models [work|can i use|are supported|does it support|does splitllm support]?",
           "what does splitllm export do?")),
    Topic("serve", "Run splitllm demo to try it at once, or splitllm serve with your own bundle.",
          ("how [do i|can i|to] [start|run|install|host|try|use|launch|set up] [splitllm|the server|a server|"
          "it myself|it at home|this at home|the demo]?",
           "what is the command to [start|run] [it|splitllm|the server]?",
           "[what does|what is] splitllm [serve|demo][| do]?",
           "can i [host|run] [it|this|splitllm] myself?")),
    Topic("same", "Yes, the answer stays the same: a split changes where the blocks run, not the model. Only "
        "rounding differs a little.",
          ("[is the answer|are the answers|do i get|is the result|are the results] the same [with|at|for] "
          "[every|any|each|a] split?",
           "does [the split|splitting|k|a split] change [the answer|the answers|the result|what you say|the "
           "quality|the model]?",
           "is [a split model|the split model|splitllm] [as good|as exact|worse|less exact|as accurate|the "
           "same]?", "does splitting make [you|the model|the answers] [worse|stupid|less good|different]?",
           "do i lose [quality|accuracy|precision]?", "is the split model [exact|identical]?")),
    Topic("int4",
        "With int4 each weight takes only 4 bits, so the blocks download faster and lose a little precision.",
          (*_word("int4", "quantization", "4 bit weights", "quantized weights", "4-bit", "int 4"),
          "why are the weights [quantized|so small|in 4 bits]?")),
    Topic("offline", "No, I need a connection: the last blocks and the head run on the server.",
          ("[does it|can you|does this|can splitllm|do you|will it] [work|run] [offline|without internet|"
          "without the internet|without a connection|without a server|without the server|alone]?",
           "can i [use|run] [it|you|this] [offline|without internet|on a plane|without a server]?",
           "do i need [internet|the internet|a connection|wifi]?",
           "what if [the internet|my connection|the connection|the server|wifi] [is gone|fails|breaks|is "
           "down|stops]?")),
    Topic("latency", "TTFT is the time to the first token, and TPOT is the time for each token after it.",
          (*_word("ttft", "tpot", "ttft and tpot", "time to first token", "the sla", "time per token"),)),
    Topic("transformer",
        "A language model predicts the next token of a text, again and again, until the answer is complete.",
          (*_word("a language model", "an llm", "a transformer", "llm", "language models", "a model",
          "the model"),
           "how does a [language model|transformer|model|llm] work?",
           "how do you [write|produce|make|find] [answers|your answers|text|words]?")),
)  # fmt: skip
