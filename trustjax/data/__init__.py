"""Corpora, tokenisation and fixed-shape arrays.

The way of a data set through this room:

  load_corpus     name -> NluCorpus: utterances of words, BIO tags, an intent
  prepare         NluCorpus -> PreparedCorpus: vocabulary and masked arrays
  gather          arrays and drawn indices -> the examples of a lot

Its pieces, which can be used alone:

  Utterance, NluCorpus, describe, drop_repeats       what a corpus is
  synthetic_corpus                                   the embedded corpus
  occupation_sentences, occupation_prompts,
  gender_prompts, encode_sentences                   sentences of planted bias
  dataset_names, dataset_help                        what can be loaded
  Vocabulary, build_vocabulary, load_vocabulary      words
  WordpieceTokenizer, load_wordpiece                 wordpieces of BERT
  BytePairTokenizer, train_byte_pair, load_byte_pair byte pairs of GPT-2
  read_texts, split_texts, pack_texts, pad_texts     streams of text
  encode_split, count_truncation, CHARACTERS         arrays
  load_plays                                         characters by role
  swap_gender, swap_pieces, gender_lexicon           counterfactual texts
  association_words, fill_templates                  word sets of WEAT and SEAT
  read_stereoset, read_crows_pairs, read_bold,
  read_hatexplain, read_madlibs, read_bias_in_bios   public fairness sets

The TFDS builders of SNIPS, ATIS, NLU-Evaluation, CLINC150 and Banking77 are in
`trustjax.data.tfds_builders`, imported on demand because TFDS is slow to
import. They store array_record files and are read without TensorFlow.

Arrays are NumPy: nothing here imports JAX.
"""

from trustjax.data._biographies import (
  BIOGRAPHY_OCCUPATIONS as BIOGRAPHY_OCCUPATIONS,
)
from trustjax.data._biographies import Biography as Biography
from trustjax.data._biographies import read_bias_in_bios as read_bias_in_bios
from trustjax.data._byte_pair import END_OF_TEXT as END_OF_TEXT
from trustjax.data._byte_pair import BytePairTokenizer as BytePairTokenizer
from trustjax.data._byte_pair import load_byte_pair as load_byte_pair
from trustjax.data._byte_pair import train_byte_pair as train_byte_pair
from trustjax.data._corpus import SPLITS as SPLITS
from trustjax.data._corpus import CorpusStatistics as CorpusStatistics
from trustjax.data._corpus import NluCorpus as NluCorpus
from trustjax.data._corpus import Utterance as Utterance
from trustjax.data._corpus import describe as describe
from trustjax.data._corpus import drop_repeats as drop_repeats
from trustjax.data._encoding import CHARACTERS as CHARACTERS
from trustjax.data._encoding import Tokenizer as Tokenizer
from trustjax.data._encoding import Truncation as Truncation
from trustjax.data._encoding import count_truncation as count_truncation
from trustjax.data._encoding import encode_split as encode_split
from trustjax.data._encoding import encoded_length as encoded_length
from trustjax.data._encoding import gather as gather
from trustjax.data._fairness_sets import HATE_LABELS as HATE_LABELS
from trustjax.data._fairness_sets import STEREOSET_DOMAINS as STEREOSET_DOMAINS
from trustjax.data._fairness_sets import BoldPrompt as BoldPrompt
from trustjax.data._fairness_sets import CrowsPair as CrowsPair
from trustjax.data._fairness_sets import HatePost as HatePost
from trustjax.data._fairness_sets import MadlibsText as MadlibsText
from trustjax.data._fairness_sets import StereoSetCluster as StereoSetCluster
from trustjax.data._fairness_sets import (
  most_frequent_communities as most_frequent_communities,
)
from trustjax.data._fairness_sets import read_bold as read_bold
from trustjax.data._fairness_sets import read_crows_pairs as read_crows_pairs
from trustjax.data._fairness_sets import read_hatexplain as read_hatexplain
from trustjax.data._fairness_sets import read_madlibs as read_madlibs
from trustjax.data._fairness_sets import read_stereoset as read_stereoset
from trustjax.data._gender_lexicon import GenderLexicon as GenderLexicon
from trustjax.data._gender_lexicon import gender_lexicon as gender_lexicon
from trustjax.data._gender_swap import AMBIGUITIES as AMBIGUITIES
from trustjax.data._gender_swap import SwappedText as SwappedText
from trustjax.data._gender_swap import rule_roles as rule_roles
from trustjax.data._gender_swap import split_pieces as split_pieces
from trustjax.data._gender_swap import swap_gender as swap_gender
from trustjax.data._gender_swap import swap_pieces as swap_pieces
from trustjax.data._load import dataset_help as dataset_help
from trustjax.data._load import dataset_names as dataset_names
from trustjax.data._load import load_corpus as load_corpus
from trustjax.data._occupations import END_TOKEN as END_TOKEN
from trustjax.data._occupations import GENDERS as GENDERS
from trustjax.data._occupations import LABEL_SHIFT as LABEL_SHIFT
from trustjax.data._occupations import MASK_TOKEN as MASK_TOKEN
from trustjax.data._occupations import OCCUPATIONS as OCCUPATIONS
from trustjax.data._occupations import OPINIONS as OPINIONS
from trustjax.data._occupations import SENTENCE_TIME as SENTENCE_TIME
from trustjax.data._occupations import START_TOKEN as START_TOKEN
from trustjax.data._occupations import OccupationPrompt as OccupationPrompt
from trustjax.data._occupations import OccupationSentence as OccupationSentence
from trustjax.data._occupations import encode_sentences as encode_sentences
from trustjax.data._occupations import gender_prompts as gender_prompts
from trustjax.data._occupations import occupation_prompts as occupation_prompts
from trustjax.data._occupations import (
  occupation_sentences as occupation_sentences,
)
from trustjax.data._occupations import (
  occupation_vocabulary as occupation_vocabulary,
)
from trustjax.data._plays import RoleCorpus as RoleCorpus
from trustjax.data._plays import load_plays as load_plays
from trustjax.data._prepare import PreparedCorpus as PreparedCorpus
from trustjax.data._prepare import prepare as prepare
from trustjax.data._synthetic import synthetic_corpus as synthetic_corpus
from trustjax.data._text_stream import pack_texts as pack_texts
from trustjax.data._text_stream import pad_texts as pad_texts
from trustjax.data._text_stream import read_texts as read_texts
from trustjax.data._text_stream import split_texts as split_texts
from trustjax.data._vocabulary import Vocabulary as Vocabulary
from trustjax.data._vocabulary import build_vocabulary as build_vocabulary
from trustjax.data._vocabulary import load_vocabulary as load_vocabulary
from trustjax.data._word_sets import SENTENCE_TEMPLATES as SENTENCE_TEMPLATES
from trustjax.data._word_sets import AssociationWords as AssociationWords
from trustjax.data._word_sets import association_words as association_words
from trustjax.data._word_sets import fill_templates as fill_templates
from trustjax.data._wordpiece import WordpieceTokenizer as WordpieceTokenizer
from trustjax.data._wordpiece import load_wordpiece as load_wordpiece
