// Interface of the part of Vision that MViTCoreML uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
import CoreGraphics
import CoreML
import CoreVideo
import Foundation
import ImageIO

// Before iOS 18.

public enum VNImageCropAndScaleOption: UInt, Sendable {
  case centerCrop, scaleFit, scaleFill
}

open class VNCoreMLModel: NSObject {
  public init(for model: MLModel) throws { fatalError() }
}

open class VNRequest: NSObject {
  open var results: [VNObservation]? { fatalError() }
}

open class VNImageBasedRequest: VNRequest {
  open var regionOfInterest: CGRect {
    get { fatalError() }
    set { fatalError() }
  }
}

open class VNCoreMLRequest: VNImageBasedRequest {
  public init(model: VNCoreMLModel) { fatalError() }
  open var imageCropAndScaleOption: VNImageCropAndScaleOption {
    get { fatalError() }
    set { fatalError() }
  }
}

open class VNObservation: NSObject {}

open class VNClassificationObservation: VNObservation {
  open var identifier: String { fatalError() }
  open var confidence: Float { fatalError() }
}

open class VNCoreMLFeatureValueObservation: VNObservation {
  open var featureName: String { fatalError() }
  open var featureValue: MLFeatureValue { fatalError() }
}

public struct VNImageOption: Hashable, Sendable {}

open class VNImageRequestHandler: NSObject {
  public init(
    cvPixelBuffer pixelBuffer: CVPixelBuffer, orientation: CGImagePropertyOrientation,
    options: [VNImageOption: Any] = [:]
  ) { fatalError() }
  public init(
    cgImage image: CGImage, orientation: CGImagePropertyOrientation,
    options: [VNImageOption: Any] = [:]
  ) { fatalError() }
  open func perform(_ requests: [VNRequest]) throws { fatalError() }
}

// From iOS 18 on.

@available(iOS 18.0, macOS 15.0, *)
public struct NormalizedRect: Sendable {
  public init(x: CGFloat, y: CGFloat, width: CGFloat, height: CGFloat) { fatalError() }
}

@available(iOS 18.0, macOS 15.0, *)
public enum ImageCropAndScaleAction: Sendable {
  case centerCrop, scaleToFit, scaleToFill
}

@available(iOS 18.0, macOS 15.0, *)
public protocol VisionObservation: Sendable {}

@available(iOS 18.0, macOS 15.0, *)
public struct ClassificationObservation: VisionObservation {
  public var identifier: String { fatalError() }
  public var confidence: Float { fatalError() }
}

@available(iOS 18.0, macOS 15.0, *)
public struct CoreMLFeatureValueObservation: VisionObservation {
  public var featureName: String { fatalError() }
  public var featureValue: MLSendableFeatureValue { fatalError() }
}

@available(iOS 18.0, macOS 15.0, *)
public protocol VisionRequest: Sendable {
  associatedtype Result: Sendable
}

@available(iOS 18.0, macOS 15.0, *)
public protocol ImageProcessingRequest: VisionRequest {
  var regionOfInterest: NormalizedRect { get set }
}

@available(iOS 18.0, macOS 15.0, *)
extension ImageProcessingRequest {
  public func perform(
    on pixelBuffer: CVPixelBuffer, orientation: CGImagePropertyOrientation? = nil
  ) async throws -> Result { fatalError() }
  public func perform(
    on image: CGImage, orientation: CGImagePropertyOrientation? = nil
  ) async throws -> Result { fatalError() }
}

@available(iOS 18.0, macOS 15.0, *)
public struct CoreMLModelContainer: Sendable {
  public init(model: MLModel, featureProvider: (any MLFeatureProvider)? = nil) throws {
    fatalError()
  }
}

@available(iOS 18.0, macOS 15.0, *)
public struct CoreMLRequest: ImageProcessingRequest {
  public typealias Result = [any VisionObservation]
  public enum Revision: Sendable {
    case revision1
  }
  public init(model: CoreMLModelContainer, _ revision: Revision? = nil) { fatalError() }
  public var cropAndScaleAction: ImageCropAndScaleAction {
    get { fatalError() }
    set { fatalError() }
  }
  public var regionOfInterest: NormalizedRect {
    get { fatalError() }
    set { fatalError() }
  }
}
