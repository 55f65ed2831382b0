from .data.pairs import Labels as Labels
from .data.pairs import Pairs as Pairs
from .data.readers import read as read
from .data.synthetic import synthetic_pairs as synthetic_pairs
from .errors import HscmaeError as HscmaeError
from .errors import InputError as InputError
from .errors import RunError as RunError
from .evaluation.protocol import evaluate as evaluate
from .hub import from_pretrained as from_pretrained
from .hub import push_to_hub as push_to_hub
from .methods import CAVMAE as CAVMAE
from .methods import CCA as CCA
from .methods import DCCA as DCCA
from .methods import DCCAE as DCCAE
from .methods import HSCMAE as HSCMAE
from .methods import MAE as MAE
from .methods import PCA as PCA
from .methods import PLS as PLS
from .methods import InfoNCE as InfoNCE
from .methods import KernelCCA as KernelCCA
from .methods import Random as Random
from .methods import RidgeCCA as RidgeCCA
from .methods import SmoothedCCA as SmoothedCCA
from .methods import SmoothedKernelCCA as SmoothedKernelCCA
from .methods import SoftCLIP as SoftCLIP
from .methods import load as load

__version__: str
