"""Metrics of saliency maps, called as those of pytorch-grad-cam: `metric(input_tensor, cams, targets, model)`."""

from holistic_cam_plugin.metrics.controls import CenteredGaussian, add_mask
from holistic_cam_plugin.metrics.deletion_insertion import Curve, Deletion, FidelityCurves, Insertion, OverAll, blur
from holistic_cam_plugin.metrics.difull import DiFull
from holistic_cam_plugin.metrics.efficient_mprt import EfficientMPRT, efficient_mprt, histogram_entropy
from holistic_cam_plugin.metrics.localization import AveragePrecision, BestIoU, average_precision, best_iou
from holistic_cam_plugin.metrics.lucidity import Lucidity, lucidity
from holistic_cam_plugin.metrics.order import rank_pixels, tied_pixels
from holistic_cam_plugin.metrics.pointing_game import EnergyPointingGame, energy_pointing_game
from holistic_cam_plugin.metrics.randomization import (
    cascading_randomization,
    independent_randomization,
    list_parameter_layers,
)
from holistic_cam_plugin.metrics.regions import rasterize_region
from holistic_cam_plugin.metrics.road import RelativeROAD, ROADScores, SeededROADCombined
from holistic_cam_plugin.metrics.scoring import Score, class_probability, score_copies
from holistic_cam_plugin.metrics.similarity import Similarity, similarity

__all__ = [
    "AveragePrecision",
    "BestIoU",
    "CenteredGaussian",
    "Curve",
    "Deletion",
    "DiFull",
    "EfficientMPRT",
    "EnergyPointingGame",
    "FidelityCurves",
    "Insertion",
    "Lucidity",
    "OverAll",
    "ROADScores",
    "RelativeROAD",
    "Score",
    "SeededROADCombined",
    "Similarity",
    "add_mask",
    "average_precision",
    "best_iou",
    "blur",
    "cascading_randomization",
    "class_probability",
    "efficient_mprt",
    "energy_pointing_game",
    "histogram_entropy",
    "independent_randomization",
    "list_parameter_layers",
    "lucidity",
    "rank_pixels",
    "rasterize_region",
    "score_copies",
    "similarity",
    "tied_pixels",
]
