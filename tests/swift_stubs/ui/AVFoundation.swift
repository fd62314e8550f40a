// Interface of the part of AVFoundation that the app uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreVideo
@_exported import Foundation

public struct CMSampleBuffer {
  public var imageBuffer: CVPixelBuffer? { fatalError() }
}

public struct AVMediaType: Hashable, Sendable {
  public static let video = AVMediaType()
}

public enum AVAuthorizationStatus: Int, Sendable {
  case notDetermined, restricted, denied, authorized
}

public class AVCaptureDevice {
  public struct DeviceType: Hashable, Sendable {
    public static let builtInWideAngleCamera = DeviceType()
  }
  public enum Position: Int, Sendable {
    case unspecified, back, front
  }
  public class func `default`(
    _ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position
  ) -> AVCaptureDevice? { fatalError() }
  public class func authorizationStatus(for mediaType: AVMediaType) -> AVAuthorizationStatus {
    fatalError()
  }
  public class func requestAccess(for mediaType: AVMediaType) async -> Bool { fatalError() }

  @available(iOS 17.0, *)
  public class RotationCoordinator {
    public init(device: AVCaptureDevice, previewLayer: AVCaptureVideoPreviewLayer?) {
      fatalError()
    }
    public var videoRotationAngleForHorizonLevelPreview: CGFloat { fatalError() }
    public func observe<Value>(
      _ keyPath: KeyPath<RotationCoordinator, Value>, options: NSKeyValueObservingOptions,
      changeHandler:
        @escaping @Sendable (RotationCoordinator, NSKeyValueObservedChange<Value>) ->
        Void
    ) -> NSKeyValueObservation { fatalError() }
  }
}

public class NSKeyValueObservation {}
public struct NSKeyValueObservedChange<Value> {}
public struct NSKeyValueObservingOptions: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { fatalError() }
  public static let new = NSKeyValueObservingOptions(rawValue: 1)
  public static let initial = NSKeyValueObservingOptions(rawValue: 4)
}

public class AVCaptureInput {}
public class AVCaptureOutput {
  public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { fatalError() }
}
public class AVCaptureDeviceInput: AVCaptureInput {
  public init(device: AVCaptureDevice) throws { fatalError() }
}

public class AVCaptureConnection {
  public func isVideoRotationAngleSupported(_ angle: CGFloat) -> Bool { fatalError() }
  public var videoRotationAngle: CGFloat {
    get { fatalError() }
    set { fatalError() }
  }
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: AnyObject {
  func captureOutput(
    _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
    from connection: AVCaptureConnection)
}

public class AVCaptureVideoDataOutput: AVCaptureOutput {
  public override init() { fatalError() }
  public var videoSettings: [String: Any]! {
    get { fatalError() }
    set { fatalError() }
  }
  public var alwaysDiscardsLateVideoFrames: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  public func setSampleBufferDelegate(
    _ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue: DispatchQueue?
  ) { fatalError() }
}

public class AVCaptureSession {
  public struct Preset: Hashable, Sendable {
    public static let hd1280x720 = Preset()
  }
  public init() { fatalError() }
  public var inputs: [AVCaptureInput] { fatalError() }
  public var sessionPreset: Preset {
    get { fatalError() }
    set { fatalError() }
  }
  public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() }
  public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() }
  public func addInput(_ input: AVCaptureInput) { fatalError() }
  public func addOutput(_ output: AVCaptureOutput) { fatalError() }
  public func beginConfiguration() { fatalError() }
  public func commitConfiguration() { fatalError() }
  public func startRunning() { fatalError() }
  public func stopRunning() { fatalError() }
}

open class CALayer {
  public init() { fatalError() }
}

public struct AVLayerVideoGravity: Hashable, Sendable {
  public static let resizeAspectFill = AVLayerVideoGravity()
}

open class AVCaptureVideoPreviewLayer: CALayer {
  public var session: AVCaptureSession? {
    get { fatalError() }
    set { fatalError() }
  }
  public var videoGravity: AVLayerVideoGravity {
    get { fatalError() }
    set { fatalError() }
  }
  public var connection: AVCaptureConnection? { fatalError() }
}
