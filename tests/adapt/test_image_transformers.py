import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from image_kit import check_freezing, check_groups, check_round_trip, features, noise_rows

from luthier.adapt.backbones.image import open_image_backbone
from luthier.adapt.backbones.image_processor import ImageProcessor
from luthier.adapt.backbones.transformers_image import TransformersImage, read_preprocessor
from luthier.errors import ModelError

transformers = pytest.importorskip("transformers")
TOKENS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
          "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 1]}
FAMILIES = {
    "resnet": (lambda t: t.ResNetConfig(embedding_size=8, layer_type="basic", **STAGES), "stage4"),
    "regnet": (lambda t: t.RegNetConfig(embedding_size=8, groups_width=8, **STAGES), "stage4"),
    "efficientnet": (lambda t: t.EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320), "top"),
    "convnext": (lambda t: t.ConvNextConfig(**STAGES), "top"),
    "convnextv2": (lambda t: t.ConvNextV2Config(**STAGES), "top"),
    "vit": (lambda t: t.ViTConfig(**TOKENS), "top"),
    "deit": (lambda t: t.DeiTConfig(**TOKENS), "top"),
    "dinov2": (lambda t: t.Dinov2Config(**TOKENS), "top"),
    "swin": (lambda t: t.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=32,
                                    patch_size=4), "top"),
    "mobilenet_v2": (lambda t: t.MobileNetV2Config(depth_multiplier=0.25, finegrained_output=False), "top"),
}
PRE = {"do_resize": True, "size": {"height": 32, "width": 32}, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
       "image_std": [0.5, 0.5, 0.5], "resample": 2}


def build(name: str, size: int = 64) -> TransformersImage:
    torch.manual_seed(0)
    config = FAMILIES[name][0](transformers)
    cls = transformers.MODEL_MAPPING[type(config)]
    pools = {"add_pooling_layer": False} if name in ("vit", "deit", "swin") else {}
    return TransformersImage(cls(config, **pools), ImageProcessor(size=size))


@pytest.mark.parametrize("name", FAMILIES)
def test_groups_cover_freeze_and_come_back(name, tmp_path):
    backbone = build(name)
    rows = noise_rows(4, 64)
    assert features(backbone, rows).shape == (4, backbone.width)
    check_groups(backbone)
    groups = list(backbone.groups())
    assert groups[0] == "stem" and groups[-1] == FAMILIES[name][1]
    check_freezing(backbone, rows, len(groups) // 2)
    check_round_trip(backbone, rows, tmp_path)


@pytest.mark.parametrize(("name", "classifier"), [("vit", "ViTForImageClassification"),
                                                  ("resnet", "ResNetForImageClassification"),
                                                  ("convnext", "ConvNextForImageClassification"),
                                                  ("swin", "SwinForImageClassification"),
                                                  ("efficientnet", "EfficientNetForImageClassification")])
def test_a_saved_classifier_opens_without_its_head_and_gives_what_its_head_read(name, classifier, tmp_path):
    torch.manual_seed(1)
    whole = getattr(transformers, classifier)(FAMILIES[name][0](transformers)).eval()
    whole.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PRE))
    backbone = open_image_backbone(str(tmp_path))
    rows = noise_rows(3, 32)
    read = []
    head = whole.classifier[-1] if isinstance(whole.classifier, torch.nn.Sequential) else whole.classifier
    head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        whole(pixel_values=backbone.processor.batch(rows)["pixels"])
    np.testing.assert_allclose(features(backbone, rows), read[0].numpy(), atol=1e-5)


def test_a_folder_without_all_weights_or_without_its_preprocessing_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    whole = transformers.ResNetModel(FAMILIES["resnet"][0](transformers))
    whole.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no preprocessor_config"):
        open_image_backbone(str(tmp_path))
    assert open_image_backbone(str(tmp_path), pretrained=False, image_size=32).width == 32
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PRE))
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("embedder.embedder.convolution.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights, such as embedder"):
        open_image_backbone(str(tmp_path))


def test_a_text_model_is_refused_with_the_families_there_are(tmp_path):
    transformers.BertModel(transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=10,
    )).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is a 'bert'.*convnext.*vit"):
        open_image_backbone(str(tmp_path))


def test_preprocessor_files_of_each_kind_are_understood(tmp_path):
    def read(model_type, **facts):
        (tmp_path / "p.json").write_text(json.dumps(facts))
        return read_preprocessor(tmp_path / "p.json", model_type=model_type, default=224)

    vit = read("vit", size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    assert (vit.size, vit.resize, vit.crop, vit.mean, vit.resample) == (384, "exact", 1.0, (0.5,) * 3, "bicubic")
    resnet = read("resnet", size={"shortest_edge": 256}, do_center_crop=True, crop_size={"height": 224, "width": 224})
    assert (resnet.size, resnet.resize, resnet.crop) == (224, "crop", 0.875)
    convnext = read("convnext", size={"shortest_edge": 224}, crop_pct=0.875)
    assert (convnext.size, convnext.crop) == (224, 0.875)
    effnet = read("efficientnet", size={"height": 64, "width": 64}, image_std=[0.5, 0.5, 0.25], image_mean=[0.0] * 3)
    assert effnet.std == (0.25, 0.25, 0.0625)
    with pytest.raises(ModelError, match="not square"):
        read("vit", size={"height": 10, "width": 20})
