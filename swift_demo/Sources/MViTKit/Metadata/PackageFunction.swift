/// The order in which a model sees the colours. Core ML produces it; an app never does.
public enum ColorOrder: String, CaseIterable, Hashable, Sendable {
  /// Red first.
  case rgb = "RGB"
  /// Blue first.
  case bgr = "BGR"
}

/// One function of a package: the model for one input size.
public struct PackageFunction: Hashable, Sendable {
  /// Its name in the package, `main` where there is but one.
  public let name: String
  /// How an app brings a photo to its input.
  public let preprocessing: Preprocessing
  /// The order in which the model sees the colours, built into the package.
  public let colorOrder: ColorOrder
  /// Factor on pixel values from 0 to 255, built into the package.
  public let scale: Double
  /// What is added after scaling, in the model's colour order, built into the package.
  public let bias: [Double]

  /// Size of its image input.
  public var inputSize: PixelSize { preprocessing.inputSize }
}

/// The version of the description that is read here.
private let knownVersion = 1
/// The longest edge of an input that is believed.
private let longestEdge = 16_384

extension PackageFunction {
  /// Reads what `mvit_coreml.preprocessing` says of one function.
  init(name: String, _ field: JSONField) throws(MetadataError) {
    let version = try field.member("version")
    guard case .number(Double(knownVersion)) = version.value else {
      throw version.mustBe("\(knownVersion), the only version that this app knows")
    }
    let size = PixelSize(
      width: try field.member("width").integer(in: 1...longestEdge),
      height: try field.member("height").integer(in: 1...longestEdge))
    let fit = try field.member("fit").oneOf(Fit.self)
    let baked = try field.member("baked")
    self.name = name
    preprocessing = Preprocessing(
      inputSize: size, fit: fit, resize: fit == .crop ? try Self.resize(field) : nil,
      resample: try field.member("resample").oneOf(ResampleFilter.self))
    colorOrder = try field.member("color_order").oneOf(ColorOrder.self)
    scale = try baked.member("scale").number()
    bias = try baked.member("bias").numbers(count: 3)
    try Self.checkCrop(field, size, fit)
  }

  private static func resize(_ field: JSONField) throws(MetadataError) -> ResizeTarget? {
    let resize = try field.member("resize")
    if resize.isNull { return nil }
    let edge = try resize.member("shortest_edge")
    if !edge.isNull { return .shortestEdge(try edge.integer(in: 1...longestEdge)) }
    return .exact(
      PixelSize(
        width: try resize.member("width").integer(in: 1...longestEdge),
        height: try resize.member("height").integer(in: 1...longestEdge)))
  }

  /// The crop is the input; a description that says otherwise is not understood.
  private static func checkCrop(
    _ field: JSONField, _ size: PixelSize, _ fit: Fit
  ) throws(MetadataError) {
    let crop = try field.member("crop")
    guard fit == .crop, !crop.isNull else { return }
    for (name, length) in [("width", size.width), ("height", size.height)] {
      let edge = try crop.member(name)
      guard case .number(Double(length)) = edge.value else {
        throw edge.mustBe("\(length) as that of the input")
      }
    }
  }
}
