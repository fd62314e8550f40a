/// How Vision scales its region of interest to the model's input.
public enum VisionScaling: Hashable, Sendable {
  /// The region fills the input, each axis with its own scale.
  case scaleFill
  /// The region keeps its aspect ratio and is centred on black.
  case scaleFit
}

/// What to ask of Vision so that it shows the model the same part of the image.
///
/// The part is the same; the pixels are not quite, as Vision has its own way of resizing.
public struct VisionRegion: Hashable, Sendable {
  /// Left edge, as a fraction of the upright image's width.
  public var x: Double
  /// Lower edge, as a fraction of the upright image's height, counted from the bottom.
  public var y: Double
  /// Width, as a fraction of the upright image's.
  public var width: Double
  /// Height, as a fraction of the upright image's.
  public var height: Double
  /// How the region is brought to the model's input.
  public var scaling: VisionScaling
}

extension Placement {
  /// Vision's region of interest that equals resize-then-crop; `nil` where Vision cannot do it.
  ///
  /// Vision pads only around a whole image with its own aspect ratio. An input that overhangs the
  /// resized image in any other way has no equal; use ``Preprocessor`` then.
  public var visionRegion: VisionRegion? {
    if !isPadded {
      let (source, image) = (source, PlaneSize(imageSize))
      return VisionRegion(
        x: source.left / image.width, y: 1 - source.bottom / image.height,
        width: source.width / image.width, height: source.height / image.height,
        scaling: .scaleFill)
    }
    guard isLetterbox else { return nil }
    return VisionRegion(x: 0, y: 0, width: 1, height: 1, scaling: .scaleFit)
  }

  /// Whether the whole image is shown, as large as its aspect ratio lets it.
  private var isLetterbox: Bool {
    let whole = Preprocessing(inputSize: inputSize, fit: .pad, resize: nil, resample: .bilinear)
    return (try? whole.placement(of: imageSize))?.resizedSize == resizedSize
  }
}
