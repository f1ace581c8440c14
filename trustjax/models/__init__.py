"""Models as records of pure functions, their losses and their scores.

Model                 init, embed, encode, heads, word_table, apply
logistic_tagger       linear in words, convex
mean_pool_tagger      few parameters, for strong privacy
bilstm_tagger         BiLSTM with an optional character CNN
bigru_tagger          the same with gated recurrent units
transformer_encoder   pre-norm encoder in tiny, mini and base sizes
bert_encoder          post-norm encoder: BERT and DistilBERT
LanguageModel         init, embed, encode, logits, word_table, apply
transformer_decoder   causal decoder: GPT-2
char_lstm             recurrent next-character model
MaskedLanguageModel   the same functions; every position sees every other
masked_encoder        encoder with the masked-word head of BERT, and its loss,
                      masked_language_model_loss
ImageClassifier       init, apply
image_cnn             two convolutions, for races on images of CIFAR-10's shape
make_model            a tagger by name, for configs
reads_characters      whether a tagger has a character CNN
make_language_model   a language model by name
load_encoder          BERT and DistilBERT from safetensors
load_decoder          GPT-2 from safetensors
save_decoder          GPT-2 to safetensors
continue_prompts      sampling: temperature, top-k, top-p, one compiled loop
perplexity            of a stream of tokens, with a stride
log_prob_function, hidden_function, embedding_function, class_function, bind
                      models as callables of batches, for evaluators
losses                the joint, next-token and label losses of one record
in_precision          a loss that computes in bfloat16 on float32 parameters
metrics               intent accuracy, span F1, exact frames
predict, evaluate     over a whole split
"""

from trustjax.models import losses as losses
from trustjax.models import metrics as metrics
from trustjax.models._bert import bert_encoder as bert_encoder
from trustjax.models._birnn import bigru_tagger as bigru_tagger
from trustjax.models._birnn import bilstm_tagger as bilstm_tagger
from trustjax.models._callbacks import bind as bind
from trustjax.models._callbacks import class_function as class_function
from trustjax.models._callbacks import embedding_function as embedding_function
from trustjax.models._callbacks import hidden_function as hidden_function
from trustjax.models._callbacks import log_prob_function as log_prob_function
from trustjax.models._char_lstm import char_lstm as char_lstm
from trustjax.models._decoder import transformer_decoder as transformer_decoder
from trustjax.models._evaluation import Evaluation as Evaluation
from trustjax.models._evaluation import evaluate as evaluate
from trustjax.models._evaluation import predict as predict
from trustjax.models._evaluation import tag_sequences as tag_sequences
from trustjax.models._image_cnn import ImageClassifier as ImageClassifier
from trustjax.models._image_cnn import image_cnn as image_cnn
from trustjax.models._language_model import LanguageModel as LanguageModel
from trustjax.models._logistic import logistic_tagger as logistic_tagger
from trustjax.models._masked_language_model import (
  MaskedLanguageModel as MaskedLanguageModel,
)
from trustjax.models._masked_language_model import (
  masked_encoder as masked_encoder,
)
from trustjax.models._masked_language_model import (
  masked_language_model_loss as masked_language_model_loss,
)
from trustjax.models._mean_pool import mean_pool_tagger as mean_pool_tagger
from trustjax.models._model import Model as Model
from trustjax.models._model import NluLogits as NluLogits
from trustjax.models._model import model_from_module as model_from_module
from trustjax.models._model import num_params as num_params
from trustjax.models._perplexity import Perplexity as Perplexity
from trustjax.models._perplexity import perplexity as perplexity
from trustjax.models._precision import COMPUTE_DTYPES as COMPUTE_DTYPES
from trustjax.models._precision import in_precision as in_precision
from trustjax.models._pretrained import load_decoder as load_decoder
from trustjax.models._pretrained import load_encoder as load_encoder
from trustjax.models._pretrained import save_decoder as save_decoder
from trustjax.models._registry import (
  language_model_names as language_model_names,
)
from trustjax.models._registry import (
  make_language_model as make_language_model,
)
from trustjax.models._registry import make_model as make_model
from trustjax.models._registry import model_names as model_names
from trustjax.models._registry import reads_characters as reads_characters
from trustjax.models._sampling import Continuations as Continuations
from trustjax.models._sampling import continue_prompts as continue_prompts
from trustjax.models._token_choice import Sampling as Sampling
from trustjax.models._token_choice import (
  kept_probabilities as kept_probabilities,
)
from trustjax.models._transformer import (
  transformer_encoder as transformer_encoder,
)
