"""SplitLLM itself: the split, who runs what, what it costs and what it does not protect."""

from __future__ import annotations

from demo.topic import Topic
from demo.topic import word_patterns as _word

IDEA_TOPICS: tuple[Topic, ...] = (
    Topic("splitllm",
        "SplitLLM runs one language model on two machines at once: your browser runs the first blocks, "
          "and a server runs the rest.",
          (*_word("splitllm", "split llm", "this project", "this system"),
           "[how does|how would] [splitllm|this|it all|this chat|this page] work?", "what am i looking at?",
           "what is [this|this page|this site|this website|this demo|this app] [|about|for]?",
           "[explain|describe] [splitllm|this page] in [one sentence|short|a few words]",
           "what [is special about|can you say about|do you know about] [splitllm|this page|this chat]?",
          "give me [a short summary|the short version|an overview|the gist] of [splitllm|this project|how "
          "this works]",
          "what [kind|sort] of [project|software|tool|site|page] is [this|splitllm]?",
          "i [just found|opened|came across|stumbled on] [this page|this site|splitllm], what is it?",
          "[mind telling me|i'd like to know|i was wondering] what this [page|site|project|demo] [does|is "
          "about|is for]",
          "what is the [concept|trick|principle] behind [splitllm|this page|this demo]?",
          "in a nutshell, what is [splitllm|this]?",
          "[where|on which machine] does [this chat|the model|tiny-chat] [run|actually run]?",
          "what runs where?",
          "does the model run [here|on my computer|in my browser] or on [a|the|your] server?",
          "walk me through [splitllm|how this works|how it all works]",
          "how can one model run on two machines?", "which part [runs|happens] where?",)),
    Topic("split", "A split is the place where the model is cut: the blocks before it run in your browser, "
          "the blocks after it run on the server.",
          (*_word("a split", "the split", "splitting", "split", "a cut", "the cut", "a split point"),
           "[how|where] is the model [split|cut|divided]?",
           "what does it mean [to split|to cut|to divide] [a|the] model?",
           "what [do you|does it] mean by [splitting|a split model|cutting the model]?",
           "[how does|how do you] [the splitting|splitting|split] [a model|work]?",
           "what is a split model?",
          "where [exactly |][is|lies] the [cut|split|border|boundary] [in the model|of the model|]?",
          "at [what|which] [point|place] is the model [cut|split|divided]?",
          "how can [a|one] model [be split|be cut|be divided] [in two|between two machines|]?",
          "what [happens|is] at the split?", "why is it called a split?",
          "what comes [before|after] the [split|cut]?",
          "between which blocks [is the cut|do you cut|is the split]?",
          "is the model [really|actually] [cut in two|split in two|in two parts|divided]?",
          "in [how many|which] [parts|pieces] is the model [split|cut]?",)),
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
           "the browser, what does it run?",
          "what does my [computer|laptop|phone|machine|device|tab] [do|contribute|have to do|work on|"
          "compute]?",
          "what is my [browser's|computer's|machine's] [job|task|role|share|part]?",
          "what am i [running|computing|contributing] [here|for you|]?",
          "which [layers|blocks|part] do i [run|compute]?",
          "how does my browser [help|join in|contribute|take part]?",
          "tell me what [my browser|my computer|the client] [does|runs|is doing]",
          "is [something|anything|any of this] running [on my machine|in my browser|in this tab|locally]?",
          "what gets [executed|calculated|processed] [locally|on this machine|client-side|in this tab]?",
          "[mind telling me|any idea|i wonder] what [runs|happens] [in this tab|on my end|locally]?",
          "why is my [computer|laptop|browser] [so busy|working so hard|getting warm] [with this chat|"
          "here|when you answer]?",
          "the [local|client|browser] [part|side|half] does what?",
          "what [share|part] of the work is mine?",)),
    Topic("server", "The server runs the blocks after the split, and the head that scores the next token.",
          ("what [runs|is running|happens|is computed|gets computed|is done] on [the|your|a] server?",
           "[what|which part|which parts|how much] of the model [runs|run|is|happens] on [the|your] server?",
           "what does [the|your] server [do|run|compute|still do|have to run]?",
           "[which|what] [blocks|layers|parts|pieces] [run|are computed|are run] [on|by] the server?",
           "what [runs|happens] [in the cloud|remotely|on the other side|on the other machine|at your end]?",
           "what is the server [doing|working on|for|good for|needed for]?",
           "why [do you|does it] need a server?",
           "what [work|job|part] does the server [do|have]?", "what remains [on|for] the server?",
          "what is the server's [job|task|role|share|part]?",
          "[tell me|explain] what the server [does|runs|is doing]",
          "how does the server [help|contribute|take part]?", "the server, what does it [do|run]?",
          "[is|does] the server [doing anything|do anything|still needed|do the rest]?",
          "what gets [executed|calculated|processed|done] [remotely|server-side|on the backend|in the "
          "data centre]?",
          "[mind telling me|any idea|i wonder] what [runs|happens] [on the server|on your end|remotely]?",
          "what is [left|left over] for the server [to do|to run|]?",
          "the [remote|server|far] [part|side|half] does what?", "what do you need the server for?",
          "which [part|half] of the model [stays|lives] on the server?", "what does the backend [do|run]?",
          "[where is|who computes] the [last part|rest|end] of the model?",)),
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
           "my questions|what i say]?",
          "[is anyone|is somebody] [listening|watching|reading along|spying] [here|in this chat|]?",
          "[do you|does anyone|will you] [log|record|save|share|sell|leak] [my chats|my messages|what i "
          "say|my words]?",
          "can i [trust you|speak freely|be open|tell you anything] [here|with my data|with a secret|]?",
          "[how|where] is my data [protected|kept safe|handled|stored]?",
          "who [can see|can read|gets to see|has access to|reads] [my messages|my text|this chat|what i "
          "type]?",
          "i [don't want|would not like] [anyone|the server|others] to [read|see] [my messages|my text|"
          "this]",
          "is it [ok|wise|a good idea|dangerous|risky] to [type|enter|share] [my password|private things|"
          "personal details] here?",
          "[does|will] [my text|what i type|my prompt] [stay|remain] [with me|on my machine|between us]?",
          "could the [server|operator|host] [find out|work out|reconstruct|guess] what i [wrote|typed|"
          "asked]?",
          "are my [secrets|messages|words|chats] safe [with you|here|]?",
          "is this [chat|conversation] [anonymous|confidential|between us]?",
          "does running blocks [here|in my browser|locally] [make it|keep it] [private|secret|safe]?",
          "[tell me about|what can you say about|i worry about|i'm concerned about] [privacy|my privacy|"
          "data protection]",)),
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
           "[why|how] is [splitting|splitllm|it] good for [the|my] [budget|bill|wallet]?",
          "[what is|what's] [in it for|the gain for] [the operator|the host|the provider]?",
          "how does [splitting|splitllm|this] [help|relieve|unburden] the server?",
          "why [not run|don't you run] [everything|the whole model|it all] on the server?",
          "[what are|tell me|name] the [advantages|upsides|pros] of [splitting|splitllm|a split]",
          "why [bother|go to the trouble] [splitting|cutting] [a model|the model|it]?",
          "[who|how does anyone] [profits|profit|benefit|benefits] from [splitting|splitllm|a split]?",
          "does [splitting|splitllm|it|a split] [save|cost less|reduce|lower] [money|costs|the bill|"
          "server costs]?",
          "is [it|this|splitting|a split] [really |]worth [it|the effort|the trouble]?",
          "what [does a split bring|do you gain by splitting|is gained by splitting|speaks for splitting]?",
          "[can|how can] one server [serve|handle] more [people|users]?",
          "[what is|what's] the reason for [splitting|the split]?",
          "why [use|involve|borrow|make use of] my [browser|computer|machine] [at all|for this]?",
          "[mind telling me|any idea|i wonder] why [splitting|it|splitllm] is cheaper",)),
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
           "does [it|splitting] [speed things up|slow things down|take longer]?",
          "[will|would|could] [a split|splitting] [make things|make the chat|be] [quicker|faster|slower]?",
          "why do [you|the answers|the words] [take so long|come so slowly|need so long]?",
          "do i get [answers|replies|tokens] [sooner|faster|more quickly] with [a split|splitllm]?",
          "[what is|what's|how is] the [speed|delay|lag] [like|of splitllm|of this chat|with a split]?",
          "is there [a delay|a lag|any lag|some latency]?",
          "[what|how much] does a split cost in [time|speed]?",
          "does the [network|round trip|connection] [slow|hold] [it|you|things] [down|up]?",
          "[can|could] [it|you|this|splitllm] [be|go|run|answer] [faster|quicker]?",
          "how [quick|quickly|speedy|fast] [do you|does splitllm|does it] [answer|run|respond|work]?",
          "[is|isn't] running on two machines [slow|slower|faster]?",
          "you are [slow|so slow|very fast|quick], why?",
          "how [long|much time] does [a token|each token|an answer] take?",
          "[speed|performance|response time]?",)),
    Topic("block",
        "A block is one layer of the model: attention and a small feed-forward network. I have 8 of them.",
          (*_word("a block", "a decoder block", "blocks", "a layer", "decoder blocks", "the blocks",
          "layers"),
           "how many [blocks|layers|decoder blocks] [do you have|are there|has the model|does the model have|"
           "have you got]?",
           "what is [inside|in] a [block|layer]?", "what are [blocks|layers] made of?",
          "[what happens|what goes on] inside a [block|layer]?",
          "how does a [block|layer] [work|look inside]?",
          "[name|list|what are] the parts of a [block|layer]",
          "what [kind|sort] of thing is a [block|layer]?", "[number|count] of [blocks|layers][|?]",
          "what is the [number|total] of [blocks|layers] in [tiny-chat|the model|you]?",
          "do you have [many|more than one|lots of] [blocks|layers]?",
          "tell me how many [blocks|layers] [you have|there are]",)),
    Topic("webgpu",
        "WebGPU lets a web page use the graphics chip of your computer. SplitLLM runs your blocks on it.",
          (*_word("webgpu", "web gpu"),
          "[do you|does splitllm|does this|does it] [use|need|work with] webgpu?",
           "[why|how] do you use webgpu?", "what has webgpu to do with it?",
           "how do you use my [gpu|graphics card|graphics chip]?",
           "do you use my [gpu|graphics card|graphics chip]?",
          "[is|does] [my browser|chrome|this page] [using|use] webgpu?",
          "what [role|part] does webgpu play[| here]?",
          "how [do|does] [you|the page|my browser] [compute|calculate] [so fast in my browser|on my gpu|"
          "on the graphics chip]?",
          "where does webgpu come in?",
          "can a [web page|website] use my [gpu|graphics chip|graphics card]?",
          "which [technology|api] do you use for my [gpu|graphics card]?",
          "is my [gpu|graphics card|graphics chip] [used|doing something|working] [here|for this|]?",)),
    Topic("planner", "The planner on the server chooses k: the split that leaves the server the least work "
          "while the answers still come in time.",
          (*_word("the planner", "a planner", "planner"), "who [chooses|picks|decides|sets|selects|"
          "determines|decided] [k|the split|where to split|how much runs here|the cut|on k]?",
           "how is [k|the split|the cut] [chosen|picked|decided|set|found|determined]?",
           "how do you [choose|pick|find|decide] [k|the split|where to cut]?",
           "[who|what] [decides|chooses] [how many blocks run here|where the model is cut|where the model is "
           "split|how many blocks i get]?",
           "can i [choose|set|pick|change] [k|the split]?",
           "why is k [so small|so big|what it is|this number]?", "where does k come from?",
          "[who|what] [makes|takes] the decision [about k|about the split|where to split]?",
          "on what [basis|grounds] is [k|the split] [chosen|decided]?",
          "how does the planner [work|decide|choose|think]?",
          "who is in charge of [the split|k|choosing k]?",
          "is [k|the split] [chosen|set|picked] [automatically|by hand|by me|by the server]?",
          "[may|could] i [decide|move|adjust|tune] [k|the split|where to cut] myself?",
          "what [decides|determines] [my share|how much my browser runs|how much i run]?",
          "[mind telling me|any idea|i wonder] who [picks|chooses|sets] [k|the split]",
          "why [did i get|do i have] [this k|this split|so few blocks|so many blocks]?",)),
    Topic("k", "k is the number of blocks that run in your browser. The server runs the others.",
          (*_word("k", "the k", "the number k", "the letter k"), "what does k [stand for|mean|tell me|say]?",
          "what is k equal to?",
           "[what if|what happens if|what does it mean if] k is [0|8|zero|big|small]?",
          "what [value|number] is k?",
          "tell me [what k is|what k means|about the value of k|the meaning of k]",
          "what [does|would] a [high|low|big|small] k mean?",
          "i see a k [here|on the page|up there], what is it?", "k is [what|which number|short for what]?",
          "how [many blocks|much] is k?", "is k the number of [blocks|layers]?",
          "[how should i|how do i] read k?",)),
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
           "does it [work|run] on [a cpu|the cpu|an old computer|my old laptop]?",
          "[will|would|can] [this|it|splitllm] [run|work] on [my old phone|a weak laptop|an old machine|a "
          "tablet|a cheap computer]?",
          "my [computer|laptop|phone] is [old|weak|ten years old|not very powerful], [does it work|is "
          "that a problem|can i use this]?",
          "[must|do] i [buy|own|have] a [gpu|graphics card|gaming pc|fast machine][| for this]?",
          "[is|can] [the|a] [cpu|processor] [enough|be enough|do it alone|do the job]?",
          "[without a gpu|no gpu|no graphics card], [is it possible|does it work|what happens|can i still "
          "chat]?",
          "what about [people|users|computers|browsers] without [a gpu|webgpu|a graphics card]?",
          "is there a [fallback|plan b|way] [without webgpu|for old computers|if i have no gpu|for slow "
          "machines]?",
          "webgpu is [not supported|missing|switched off|not available] [here|in my browser|on my "
          "machine][, what now|, and now|]?",
          "[what are|tell me] the [hardware requirements|system requirements|requirements]",
          "what does webassembly do[| here]?", "can [safari|firefox|my browser] do it without webgpu?",)),
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
           "do you send my [text|prompt|words] to the server?",
          "what [do|must] the [two sides|two machines|browser and the server] [exchange|send each other|"
          "say to each other]?",
          "what [leaves|comes out of|goes out from] my [computer|machine|browser|laptop]?",
          "[which|what] [numbers|data|bytes|messages] [cross|travel over|go through] the [network|wire|"
          "internet]?",
          "what does the server [get|receive|hear] from [my browser|my side|my machine]?",
          "how do [my browser and the server|the two halves|both parts] [talk|communicate|exchange data]?",
          "[what is|what gets] [passed on|handed over|transferred|uploaded] [to the server|at the split|"
          "for each token]?",
          "what [is|goes] in [each|one] [message|packet|round trip]?",
          "what comes back [from the server|to my browser|to me]?",
          "do you [upload|transmit] [the text itself|my words|the prompt as text]?",
          "[mind telling me|any idea|i wonder] what [is sent|gets sent|my browser sends] [to the server|"
          "over the network]",
          "tell me what is sent",)),
)  # fmt: skip
