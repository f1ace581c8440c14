"""Models as records of pure functions, their losses and their scores.

Model                 init, embed, encode, heads, word_table, apply
mean_pool_tagger      few parameters, for strong privacy
bilstm_tagger         BiLSTM with an optional character CNN
transformer_encoder   pre-norm encoder in tiny, mini and base sizes
make_model            by name, for configs
losses                the joint loss of one record
metrics               intent accuracy, span F1, exact frames
predict, evaluate     over a whole split
"""

from trustjax.models import losses as losses
from trustjax.models import metrics as metrics
from trustjax.models._bilstm import bilstm_tagger as bilstm_tagger
from trustjax.models._evaluation import Evaluation as Evaluation
from trustjax.models._evaluation import evaluate as evaluate
from trustjax.models._evaluation import predict as predict
from trustjax.models._evaluation import tag_sequences as tag_sequences
from trustjax.models._mean_pool import mean_pool_tagger as mean_pool_tagger
from trustjax.models._model import Model as Model
from trustjax.models._model import NluLogits as NluLogits
from trustjax.models._model import model_from_module as model_from_module
from trustjax.models._model import num_params as num_params
from trustjax.models._registry import make_model as make_model
from trustjax.models._registry import model_names as model_names
from trustjax.models._transformer import (
  transformer_encoder as transformer_encoder,
)
