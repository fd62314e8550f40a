// Interface of the part of Core ML that MViTCoreML uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreVideo
import Foundation

public enum MLComputeUnits: Int, Sendable {
  case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

// SDKs differ in what they say about the classes' Sendability: see the end of this file.
open class MLModelConfiguration: NSObject {
  public override init() { fatalError() }
  open var computeUnits: MLComputeUnits {
    get { fatalError() }
    set { fatalError() }
  }
  @available(iOS 18.0, macOS 15.0, *)
  open var functionName: String? {
    get { fatalError() }
    set { fatalError() }
  }
}

public protocol MLFeatureProvider: AnyObject {
  var featureNames: Set<String> { get }
  func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
  public init(dictionary: [String: Any]) throws { fatalError() }
  open var featureNames: Set<String> { fatalError() }
  open func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

open class MLPredictionOptions: NSObject {
  public override init() { fatalError() }
  open var outputBackings: [String: Any] {
    get { fatalError() }
    set { fatalError() }
  }
}

open class MLModel: NSObject {
  public class func compileModel(at modelURL: URL) async throws -> URL { fatalError() }
  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
  ) async throws -> MLModel { fatalError() }
  public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() }
  open var modelDescription: MLModelDescription { fatalError() }
  open func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider { fatalError() }
  @available(iOS 17.0, macOS 14.0, *)
  open func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
  ) async throws -> any MLFeatureProvider { fatalError() }
}

public struct MLModelMetadataKey: Hashable, Sendable {
  public static var author: MLModelMetadataKey { fatalError() }
  public static var license: MLModelMetadataKey { fatalError() }
  public static var versionString: MLModelMetadataKey { fatalError() }
  public static var description: MLModelMetadataKey { fatalError() }
  public static var creatorDefinedKey: MLModelMetadataKey { fatalError() }
}

open class MLModelDescription: NSObject {
  open var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
  open var outputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
  open var predictedFeatureName: String? { fatalError() }
  open var predictedProbabilitiesName: String? { fatalError() }
  open var classLabels: [Any]? { fatalError() }
  open var metadata: [MLModelMetadataKey: Any] { fatalError() }
}

open class MLFeatureDescription: NSObject {
  open var imageConstraint: MLImageConstraint? { fatalError() }
  open var multiArrayConstraint: MLMultiArrayConstraint? { fatalError() }
}

open class MLImageConstraint: NSObject {
  open var pixelsWide: Int { fatalError() }
  open var pixelsHigh: Int { fatalError() }
  open var pixelFormatType: OSType { fatalError() }
}

open class MLMultiArrayConstraint: NSObject {
  open var shape: [NSNumber] { fatalError() }
}

open class MLMultiArray: NSObject {
  open var shape: [NSNumber] { fatalError() }
  open var strides: [NSNumber] { fatalError() }
  public func withUnsafeBytes<R>(
    _ body: (UnsafeRawBufferPointer) throws -> R
  ) rethrows -> R { fatalError() }
}

open class MLFeatureValue: NSObject {
  public init(pixelBuffer value: CVPixelBuffer) { fatalError() }
  open var imageBufferValue: CVPixelBuffer? { fatalError() }
  open var multiArrayValue: MLMultiArray? { fatalError() }
  open var dictionaryValue: [AnyHashable: NSNumber] { fatalError() }
  public func shapedArrayValue<Scalar: MLShapedArrayScalar>(
    of type: Scalar.Type
  ) -> MLShapedArray<Scalar>? { fatalError() }
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}
extension Double: MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar> {
  public var shape: [Int] { fatalError() }
  public var strides: [Int] { fatalError() }
  public var scalars: [Scalar] { fatalError() }
  public func withUnsafeShapedBufferPointer<R>(
    _ body: (UnsafeBufferPointer<Scalar>, [Int], [Int]) throws -> R
  ) rethrows -> R { fatalError() }
}
extension MLShapedArray: Sendable where Scalar: Sendable {}

@available(iOS 18.0, macOS 15.0, *)
public struct MLSendableFeatureValue: Sendable {
  public func shapedArrayValue<Scalar: MLShapedArrayScalar>(
    of type: Scalar.Type
  ) -> MLShapedArray<Scalar>? { fatalError() }
}

// Compute plans, iOS 17.4.

public final class MLCPUComputeDevice: NSObject {}
public final class MLGPUComputeDevice: NSObject {}
public final class MLNeuralEngineComputeDevice: NSObject {}

@available(iOS 17.0, macOS 14.0, *)
public enum MLComputeDevice {
  case cpu(MLCPUComputeDevice)
  case gpu(MLGPUComputeDevice)
  case neuralEngine(MLNeuralEngineComputeDevice)
}

@available(iOS 17.4, macOS 14.4, *)
public enum MLModelStructure {
  case neuralNetwork(NeuralNetwork)
  case program(Program)
  case pipeline(Pipeline)
  case unsupported

  public struct NeuralNetwork {}
  public struct Pipeline {}
  public struct Program {
    public let functions: [String: Function]

    public struct Function {
      public let block: Block
    }
    public struct Block {
      public let operations: [Operation]
    }
    public struct Operation {
      public let operatorName: String
      public let blocks: [Block]
    }
  }
}

@available(iOS 17.4, macOS 14.4, *)
public final class MLComputePlan {
  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration
  ) async throws -> MLComputePlan { fatalError() }
  public var modelStructure: MLModelStructure { fatalError() }
  public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
    fatalError()
  }
  public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
    fatalError()
  }

  public struct DeviceUsage {
    public let supported: [MLComputeDevice]
    public let preferred: MLComputeDevice
  }
  public struct Cost {
    public let weight: Double
  }
}

#if SENDABLE
extension MLModel: @unchecked Sendable {}
extension MLModelConfiguration: @unchecked Sendable {}
extension MLComputePlan: @unchecked Sendable {}
#elseif NOT_SENDABLE
@available(*, unavailable) extension MLModel: @unchecked Sendable {}
@available(*, unavailable) extension MLModelConfiguration: @unchecked Sendable {}
@available(*, unavailable) extension MLComputePlan: @unchecked Sendable {}
#endif
