"""What of Keras a model's configuration may name: parts that compute, and do nothing else.

Left out are those that run code of the file or read other files: Lambda, TFSMLayer,
TorchModuleWrapper, JaxLayer, FlaxLayer, ClassMethod, InstanceMethod, TensorFlowOpLayer.
"""

from __future__ import annotations

import re

_LAYERS = """
AbstractRNNCell Activation ActivityRegularization Add AddLoss AddMetric AdditiveAttention
AlphaDropout Attention AugMix AutoContrast Average BatchNormalization BatchNormalizationV1
BatchNormalizationV2 Bidirectional CategoryEncoding CenterCrop Concatenate
ContrastLimitedAdaptiveHistogramEqualization CuDNNGRU CuDNNLSTM CutMix Dense DenseFeatures
DeviceWrapper Discretization Dot Dropout DropoutWrapper ELU EinsumDense Embedding Equalization
Flatten Functional GRU GRUCell GRUCellV1 GRUCellV2 GRUV1 GRUV2 GaussianDropout GaussianNoise
GroupNormalization GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing Identity Input
InputLayer InputSpec IntegerLookup LSTM LSTMCell LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2
LayerNormalization LeakyReLU LinearModel LocallyConnected1D LocallyConnected2D Masking
MaxNumBoundingBoxes Maximum MelSpectrogram Minimum MixUp Model MultiHeadAttention Multiply
Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment ReLU RepeatVector Rescaling
Reshape ResidualWrapper Resizing ReversibleEmbedding STFTSpectrogram SequenceFeatures Sequential
SimpleRNN SimpleRNNCell SlicingOpLambda Softmax Solarization SpectralNormalization StackedRNNCells
StringLookup Subtract SyncBatchNormalization TFOpLambda TextVectorization ThresholdedReLU
TimeDistributed UnitNormalization WideDeepModel
RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight
RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom
"""
_OF_DIMENSIONS = """
AdaptiveAveragePooling AdaptiveMaxPooling AveragePooling AvgPool Conv ConvLSTM Convolution Cropping
DepthwiseConv GlobalAveragePooling GlobalAvgPool GlobalMaxPool GlobalMaxPooling MaxPool MaxPooling
SeparableConv SeparableConvolution SpatialDropout UpSampling ZeroPadding
"""
_OTHERS = """
Constant GlorotNormal GlorotUniform HeNormal HeUniform IdentityInitializer LecunNormal LecunUniform
Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer
TruncatedNormal VarianceScaling Zeros
L1 L1L2 L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm
AWQDTypePolicy DTypePolicy DTypePolicyMap FloatDTypePolicy GPTQDTypePolicy Int4DTypePolicy Policy
QuantizedDTypePolicy QuantizedFloat8DTypePolicy
SeedGenerator
BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge Circle
CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError
MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
SparseCategoricalCrossentropy SquaredHinge Tversky
AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation F1Score
FBetaScore FalseNegatives FalsePositives IoU LogCoshError Mean MeanIoU MeanMetricWrapper
MeanRelativeError MeanTensor OneHotIoU OneHotMeanIoU PearsonCorrelation Precision
PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity
SparseCategoricalAccuracy SparseTopKCategoricalAccuracy SpecificityAtSensitivity Sum
TopKCategoricalAccuracy TrueNegatives TruePositives
Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Muon Nadam RMSprop
SGD ScheduleFreeAdamW CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay
PiecewiseConstantDecay PolynomialDecay
"""
CLASSES = frozenset(
    (
        *_LAYERS.split(),
        *_OTHERS.split(),
        *(f"{name}{n}D" for name in _OF_DIMENSIONS.split() for n in (1, 2, 3)),
        *(f"{name}{n}DTranspose" for name in ("Conv", "Convolution") for n in (1, 2, 3)),
    )
)
"""Classes of layers, initialisers, regularisers, constraints, losses, metrics, optimisers."""

_DATA = """
__bytes__ __ellipsis__ __keras_tensor__ __numpy__ __slice__ __tensor__ __tuple__ __typespec__
CompositeTensor TensorShape TypeSpec
"""
DATA = frozenset(_DATA.split())
"""Names under which Keras writes values that are no objects of a class."""

_FUNCTIONS = """
celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
KLD MAE MAPE MSE MSLE binary_accuracy binary_crossentropy binary_focal_crossentropy
categorical_accuracy categorical_crossentropy categorical_focal_crossentropy
categorical_generalized_cross_entropy categorical_hinge circle concordance_correlation
cosine_similarity ctc dice hinge huber kl_divergence kld kullback_leibler_divergence log_cosh
logcosh mae mape mean_absolute_error mean_absolute_percentage_error mean_squared_error
mean_squared_logarithmic_error mse msle pearson_correlation poisson sparse_categorical_accuracy
sparse_categorical_crossentropy sparse_top_k_categorical_accuracy squared_hinge
top_k_categorical_accuracy tversky
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Activations, losses and metrics that are functions."""

FILES = ("vocabulary", "idf_weights")
"""Settings in which a layer takes its values, or the name of a file that holds them."""

# Operations of Keras 3 as layers: classes of these modules.
OPERATIONS = re.compile(r"keras(?:\.src)?\.ops(?:\.(?:core|einops|image|linalg|math|nn|numpy))?")

# Functions of TensorFlow as layers (Keras 2), by their public names.
TENSORFLOW_FUNCTIONS = re.compile(
    r"(?:compat\.v1\.)?(?:(?:math|nn|linalg|signal|image|bitwise|quantization|__operators__)"
    r"(?:\.[a-z0-9_]+)+|keras\.activations\.[a-z0-9_]+|"
    r"abs|acosh?|add|add_n|arg(?:max|min|sort)|asinh?|atan[2h]?|batch_to_space|boolean_mask|"
    r"broadcast_(?:to|static_shape|dynamic_shape)|cast|clip_by_(?:norm|value)|concat|cosh?|"
    r"cumsum|divide|einsum|ensure_shape|equal|exp|expand_dims|eye|fill|floor|floordiv|gather|"
    r"gather_nd|greater|greater_equal|identity|identity_n|less|less_equal|linspace|"
    r"logical_(?:and|not|or)|matmul|maximum|meshgrid|minimum|multiply|negative|norm|not_equal|"
    r"one_hot|ones|ones_like|pad|pow|range|rank|"
    r"realdiv|reduce_(?:all|any|logsumexp|max|mean|min|prod|sum|std|variance)|repeat|reshape|"
    r"reverse|reverse_sequence|roll|round|scalar_mul|scatter_nd|searchsorted|sequence_mask|shape|"
    r"sigmoid|sign|sinh?|size|slice|sort|space_to_batch|split|sqrt|square|squeeze|stack|"
    r"stop_gradient|strided_slice|subtract|tanh?|tensor_scatter_nd_\w+|tensordot|tile|transpose|"
    r"truediv|truncatediv|truncatemod|unique|unstack|where|zeros|zeros_like)"
)
